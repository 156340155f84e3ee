package registry

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"faena.dev/faena/internal/faena"
)

const (
	// resolveFor bounds all questions for one image.
	resolveFor = 20 * time.Second
	// maxWords bounds what of a registry's words reaches a user.
	maxWords = 512
)

// repositoryPattern is what the engine takes as a repository: the library alone would let .. through, which is a way to
// other paths of a host.
var repositoryPattern = regexp.MustCompile(`^[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)*$`)

// hostPattern is what the engine takes as a registry; the library would let :: through, which is no host of a URL.
var hostPattern = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?$`)

// Resolver pins references to digests. It is safe for concurrent use.
type Resolver struct {
	rules     Rules
	transport http.RoundTripper
	within    time.Duration // bounds all questions for one image
}

// NewResolver makes it.
func NewResolver(rules Rules) *Resolver {
	r := &Resolver{rules: rules, within: resolveFor}
	r.transport = r.rules.transport()
	return r
}

// Resolve pins a reference to the digest of its manifest for linux/arch and reads the image's configuration. creds may
// be nil. Errors are *faena.Error: KindInvalid with the reason image_not_found, image_denied, image_platform or
// image_refused, in the registry's words; KindUnavailable for a registry that does not answer.
func (r *Resolver) Resolve(ctx context.Context, image string, creds *faena.Credentials, arch string) (faena.ResolvedImage, error) {
	ctx, cancel := context.WithTimeout(ctx, r.within)
	defer cancel()
	ref, err := r.parse(image)
	if err != nil {
		return faena.ResolvedImage{}, err
	}
	q := question{ref: ref, arch: arch, creds: creds, opts: []remote.Option{remote.WithContext(ctx), remote.WithTransport(r.transport),
		remote.WithAuth(authOf(creds)), remote.WithUserAgent("faena"), remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Steps: 2})}}
	out, err := q.resolve()
	if err != nil {
		return faena.ResolvedImage{}, q.meaning(err)
	}
	return out, nil
}

// parse reads a reference, if images may come from its registry.
func (r *Resolver) parse(image string) (name.Reference, error) {
	ref, err := name.ParseReference(image, name.WeakValidation)
	if err != nil {
		return nil, refused("image", "", "is no reference of an image: "+err.Error(), nil)
	}
	if repository := ref.Context().RepositoryStr(); !repositoryPattern.MatchString(repository) {
		return nil, refused("image", "", "is no reference of an image: repository "+repository, nil)
	}
	host := ref.Context().RegistryStr()
	// The engine knows Docker Hub's repositories without its name: localhost/tool there would be pulled from this host.
	if first, _, deep := strings.Cut(ref.Context().RepositoryStr(), "/"); host == dockerHub && deep && (first == "localhost" || strings.Contains(first, ".")) {
		return nil, refused("image", "", "is no reference of an image: Docker Hub has no "+first+"/", nil)
	}
	if !hostPattern.MatchString(host) {
		return nil, refused("image", "", "is no reference of an image: registry "+host, nil)
	}
	if err := r.rules.allows(host); err != nil {
		return nil, refused("image", "image_refused", err.Error(), nil)
	}
	if !r.rules.plain(host) {
		return ref, nil
	}
	if ref, err = name.ParseReference(image, name.WeakValidation, name.Insecure); err != nil {
		return nil, refused("image", "", "is no reference of an image: "+err.Error(), nil)
	}
	return ref, nil
}

func authOf(creds *faena.Credentials) authn.Authenticator {
	if creds == nil {
		return authn.Anonymous
	}
	return &authn.Basic{Username: creds.Username, Password: creds.Password}
}

// question is one image that is asked for.
type question struct {
	ref   name.Reference
	arch  string
	creds *faena.Credentials
	opts  []remote.Option
}

func (q *question) resolve() (faena.ResolvedImage, error) {
	desc, err := remote.Get(q.ref, q.opts...)
	if err != nil {
		return faena.ResolvedImage{}, err
	}
	var img v1.Image
	switch {
	case desc.MediaType.IsIndex():
		img, err = q.choose(desc)
	case desc.MediaType.IsImage():
		img, err = desc.Image()
	default:
		return faena.ResolvedImage{}, refused("image", "image_platform", fmt.Sprintf("is of a format that is not run here (%s)", desc.MediaType), q.creds)
	}
	if err != nil {
		return faena.ResolvedImage{}, err
	}
	return q.read(img)
}

// choose picks the image of an index for linux and the architecture.
func (q *question) choose(desc *remote.Descriptor) (v1.Image, error) {
	index, err := desc.ImageIndex()
	if err != nil {
		return nil, err
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var have []string
	for _, m := range list.Manifests {
		if m.Platform == nil || !m.MediaType.IsImage() || m.Platform.OS == "unknown" { // an attestation, for one
			continue
		}
		if m.Platform.OS == "linux" && m.Platform.Architecture == q.arch {
			return index.Image(m.Digest)
		}
		have = append(have, m.Platform.OS+"/"+m.Platform.Architecture)
	}
	if len(have) == 0 {
		return nil, q.otherPlatform("no platform")
	}
	slices.Sort(have)
	return nil, q.otherPlatform(strings.Join(slices.Compact(have), ", "))
}

func (q *question) otherPlatform(have string) error {
	return refused("image", "image_platform", fmt.Sprintf("is for %s, the workers run linux/%s", have, q.arch), q.creds)
}

func (q *question) read(img v1.Image) (faena.ResolvedImage, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return faena.ResolvedImage{}, err
	}
	if file.OS != "" && file.OS != "linux" || file.Architecture != "" && file.Architecture != q.arch {
		return faena.ResolvedImage{}, q.otherPlatform(file.OS + "/" + file.Architecture)
	}
	digest, err := img.Digest()
	if err != nil {
		return faena.ResolvedImage{}, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return faena.ResolvedImage{}, err
	}
	out := faena.ResolvedImage{Digest: digest.String(), Pull: familiar(q.ref.Context().Name()) + "@" + digest.String()}
	for _, l := range manifest.Layers {
		out.SizeBytes += l.Size
	}
	c := file.Config
	out.Config = faena.ImageConfig{Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkingDir: c.WorkingDir, User: c.User, StopSignal: c.StopSignal}
	for v := range c.Volumes {
		out.Config.Volumes = append(out.Config.Volumes, v)
	}
	slices.Sort(out.Config.Volumes)
	return out, nil
}

// familiar is the form in which the Docker Engine lists a repository of Docker Hub.
func familiar(repository string) string {
	rest, ok := strings.CutPrefix(repository, dockerHub+"/")
	if !ok {
		return repository
	}
	if official, ok := strings.CutPrefix(rest, "library/"); ok && !strings.Contains(official, "/") {
		return official
	}
	return rest
}

// meaning turns what the library returned into an error for the user.
func (q *question) meaning(err error) error {
	if e, ok := errors.AsType[*faena.Error](err); ok {
		return e
	}
	if errors.Is(err, errRefused) {
		return refused("image", "image_refused", "cannot be asked for: "+err.Error(), q.creds)
	}
	if e, ok := errors.AsType[*transport.Error](err); ok {
		words := wordsOf(e)
		switch {
		case e.StatusCode == http.StatusUnauthorized, e.StatusCode == http.StatusForbidden:
			return refused("image", string(faena.ReasonImageDenied), "is denied by its registry: "+words, q.creds)
		case e.StatusCode == http.StatusNotFound:
			return refused("image", string(faena.ReasonImageNotFound), "is not at its registry: "+words, q.creds)
		case e.StatusCode < 500 && e.StatusCode != http.StatusTooManyRequests:
			return refused("image", string(faena.ReasonImageNotFound), "is not given by its registry: "+words, q.creds)
		}
		return q.away(words)
	}
	words := err.Error()
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		words += "; where the registry has a CA of its own, the host of each API must trust it (docs/operations.md)"
	}
	return q.away(words)
}

// wordsOf are a registry's own words, or at least its status.
func wordsOf(e *transport.Error) string {
	words := make([]string, 0, len(e.Errors))
	for _, d := range e.Errors {
		words = append(words, string(d.Code)+": "+d.Message)
	}
	if len(words) == 0 {
		return fmt.Sprintf("status %d", e.StatusCode)
	}
	return strings.Join(words, "; ")
}

func (q *question) away(words string) error {
	// No cause: its text could hold what is taken out of the message.
	return faena.Unavailable(faena.ComponentRegistry, "registry_unavailable",
		bounded("The registry "+q.ref.Context().RegistryStr()+" did not answer as it should: "+words, q.creds), nil)
}

// refused is the error of an image that cannot be deployed.
func refused(field, reason, text string, creds *faena.Credentials) error {
	text = bounded(text, creds)
	e := faena.Invalid(faena.FieldError{Field: field, Message: text})
	e.Component = faena.ComponentRegistry
	if reason != "" {
		e.Reason = reason
	}
	return e
}

// bounded makes foreign text fit for a message: one line, valid UTF-8, at most maxWords, and without the password, also
// as a registry has seen it.
func bounded(text string, creds *faena.Credentials) string {
	redact := func(s string) string { return s }
	if creds != nil && creds.Password != "" {
		header := base64.StdEncoding.EncodeToString([]byte(creds.Username + ":" + creds.Password))
		redact = strings.NewReplacer(header, "***", creds.Password, "***", url.QueryEscape(creds.Password), "***").Replace
	}
	text = strings.Join(strings.FieldsFunc(redact(text), func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError }), " ")
	// A password with a space in it may have come with another one; one that is no text may be the half of a letter.
	text = strings.ToValidUTF8(redact(text), "*")
	if len(text) > maxWords {
		text = strings.ToValidUTF8(text[:maxWords], "") + "…"
	}
	return text
}
