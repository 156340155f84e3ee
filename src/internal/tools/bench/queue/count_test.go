package queue

import (
	"testing"

	"faena.dev/faena/internal/tools/bench/installation"
)

// What ran twice is seen, though each record says that it ran once.
func TestTallies_Beyond(t *testing.T) {
	for name, c := range map[string]struct {
		results []string
		want    int
	}{
		"each ran once":                           {[]string{"a 1", "a 2", "b 1", "a 3"}, 0},
		"they ended in another order":             {[]string{"a 3", "a 1", "a 2"}, 0},
		"one run in a container has no record":    {[]string{"a 1", "a 3"}, 1},
		"the first one has none":                  {[]string{"a 2", "b 1"}, 1},
		"more of them in several":                 {[]string{"a 4", "a 2", "b 3", "b 1"}, 3},
		"a container whose results are all there": {[]string{"a 1"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			seen := tallies{}
			for _, r := range c.results {
				if err := seen.add(r); err != nil {
					t.Fatal(err)
				}
			}
			if got := seen.beyond(); got != c.want {
				t.Errorf("%d runs have no record, want %d", got, c.want)
			}
		})
	}
	for _, bad := range []string{"", "a", "a b", " 1"} {
		if err := (tallies{}).add(bad); err == nil {
			t.Errorf("the result %q is taken", bad)
		}
	}
}

func TestCourse_Growth(t *testing.T) {
	course := func(private func(share float64) int64) *Course {
		c := &Course{}
		for k := range 101 {
			share := float64(k) / 100
			c.points = append(c.points, point{share, installation.Usage{Private: private(share)}})
		}
		return c
	}
	for name, c := range map[string]struct {
		private func(share float64) int64
		want    int64
	}{
		"flat":                       {func(float64) int64 { return 50 }, 0},
		"it rises at the start":      {func(s float64) int64 { return min(50, int64(s*500)) }, 0},
		"it goes up and down":        {func(s float64) int64 { return 50 + int64(s*100)%3 }, 0},
		"a little for each":          {func(s float64) int64 { return int64(1000 * s) }, 800},
		"it was more at the start":   {func(s float64) int64 { return 1000 - int64(1000*s) }, -800},
		"a peak between is not that": {func(s float64) int64 { return map[bool]int64{true: 900, false: 50}[s > .4 && s < .6] }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := course(c.private).Growth(); got < c.want-10 || got > c.want+10 {
				t.Errorf("it grew by %d, want %d", got, c.want)
			}
		})
	}
}
