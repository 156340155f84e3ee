package faena

import "testing"

func TestGroup_Validate(t *testing.T) {
	const nkey = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
	for _, c := range []struct {
		name  string
		group Group
		field string
	}{
		{"with keys", Group{Name: "gpu", Nkey: nkey, Recipient: "age1x"}, ""},
		{"without keys", Group{Name: "gpu"}, ""},
		{"a name with a dot", Group{Name: "g.pu"}, "name"},
		{"a mistyped nkey", Group{Name: "gpu", Nkey: nkey[:20] + "A" + nkey[21:]}, "nkey"},
		{"an nkey of an account", Group{Name: "gpu", Nkey: "A" + nkey[1:]}, "nkey"},
		{"a short nkey", Group{Name: "gpu", Nkey: nkey[:50]}, "nkey"},
		{"another key", Group{Name: "gpu", Recipient: "ssh-ed25519 AAAA"}, "recipient"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.group.Validate()
			if (err == nil) != (c.field == "") {
				t.Fatalf("it returns %v", err)
			}
			if err != nil && err.(*Error).Fields[0].Field != c.field {
				t.Errorf("it names %v", err.(*Error).Fields)
			}
		})
	}
}
