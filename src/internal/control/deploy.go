package control

import (
	"context"
	"encoding/json"
	"fmt"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/faena"
)

// Deploy stores a new revision of a function, with its image pinned to the digest that the registry gives now, and
// makes it the one that serves. On any error the revision before goes on serving.
func (c *Control) Deploy(ctx context.Context, user string, d faena.Deployment) (faena.Function, faena.Revision, bool, []string, error) {
	none := func(err error) (faena.Function, faena.Revision, bool, []string, error) {
		return faena.Function{}, faena.Revision{}, false, nil, err
	}
	if d.Condition != (faena.Condition{}) { // no registry is asked for what is refused anyway
		head, err := c.o.Documents.Function(ctx, user, d.Name)
		if err != nil && !faena.IsKind(err, faena.KindNotFound) {
			return none(err)
		}
		if err := d.Condition.Check(head, err == nil); err != nil {
			return none(err)
		}
	}
	rev, err := c.revision(ctx, user, d)
	if err != nil {
		return none(err)
	}
	f, created, err := c.o.Documents.AddRevision(ctx, rev, d.Condition)
	if err != nil {
		return none(err)
	}
	rev.Number = f.Current
	c.announce(changedFunction, user, d.Name)
	return f, rev, created, rev.Warnings(), nil
}

// revision checks a deployment and resolves its image.
func (c *Control) revision(ctx context.Context, user string, d faena.Deployment) (faena.Revision, error) {
	if !faena.ValidName(d.Name) {
		return faena.Revision{}, faena.Invalid(faena.FieldError{Field: "name", Message: fmt.Sprintf("is %q, must match %s", d.Name, faena.NamePattern)})
	}
	spec := d.Spec.WithDefaults()
	if err := spec.Validate(); err != nil {
		return faena.Revision{}, err
	}
	group, err := c.usable(ctx, user, spec.Group)
	if err != nil {
		return faena.Revision{}, err
	}
	image, err := c.o.Resolver.Resolve(ctx, spec.Image, d.Registry, c.o.Arch)
	if err != nil {
		return faena.Revision{}, err
	}
	rev := faena.Revision{
		Schema: faena.SchemaVersion, User: user, Function: d.Name, Spec: spec, Digest: image.Digest, Pull: image.Pull,
		SizeBytes: image.SizeBytes, Config: image.Config, CreatedAt: clock.Now(),
	}
	if !rev.HasCommand() {
		return faena.Revision{}, &faena.Error{Kind: faena.KindInvalid, Reason: string(faena.ReasonNoCommand), Component: faena.ComponentFunction,
			Message: "The image has neither ENTRYPOINT nor CMD: say in command what to run.",
			Fields:  []faena.FieldError{{Field: "command", Message: "is missing, and the image names none"}}}
	}
	if v := rev.Config.BadVolume(); v != "" {
		return faena.Revision{}, &faena.Error{Kind: faena.KindInvalid, Reason: "volume_impossible", Component: faena.ComponentFunction,
			Message: fmt.Sprintf("The image declares the volume %q, where a container has something of its own.", v),
			Fields:  []faena.FieldError{{Field: "image", Message: "declares a volume that cannot be one"}}}
	}
	if d.Registry != nil {
		if rev.Sealed, err = c.seal(group, d.Registry); err != nil {
			return faena.Revision{}, err
		}
	}
	return rev, checkSize(&rev)
}

func (c *Control) seal(group faena.Group, creds *faena.Credentials) ([]byte, error) {
	if group.Recipient == "" {
		return nil, faena.Invalid(faena.FieldError{Field: "registry", Message: fmt.Sprintf("cannot be sealed: group %q has no public key yet; "+
			"an admin must give it the one that faena-worker keygen prints", group.Name)})
	}
	plain, err := json.Marshal(creds)
	if err != nil {
		return nil, fmt.Errorf("encode registry credentials: %w", err)
	}
	sealed, err := c.o.Sealer.Seal(group.Recipient, plain)
	if err != nil {
		return nil, fmt.Errorf("seal registry credentials for group %s: %w", group.Name, err)
	}
	return sealed, nil
}

func checkSize(rev *faena.Revision) error {
	b, err := json.Marshal(rev)
	if err != nil {
		return fmt.Errorf("encode revision: %w", err)
	}
	if len(b) > faena.MaxRevisionBytes {
		return &faena.Error{Kind: faena.KindTooLarge, Reason: "revision_too_large", Component: faena.ComponentCaller,
			Message: fmt.Sprintf("The function's spec with its image's configuration is %d bytes, at most %d travel with each activation. "+
				"Shorten env, command and args.", len(b), faena.MaxRevisionBytes)}
	}
	return nil
}

// Function returns a function's head and the revision that serves; KindNotFound where there is none. It reads the
// store, so that a change made elsewhere is seen at once.
func (c *Control) Function(ctx context.Context, user, name string) (faena.Function, faena.Revision, error) {
	d, err := c.loadFunction(ctx, user, name)
	if err != nil {
		return faena.Function{}, faena.Revision{}, err
	}
	return d.function, *d.revision, nil
}

// Functions lists a user's functions in order of name, those after the given name.
func (c *Control) Functions(ctx context.Context, user, after string, limit int) ([]faena.Function, error) {
	return c.o.Documents.Functions(ctx, user, after, limit)
}

// Revisions lists a function's revisions, newest first, those below the given number (0: from the newest).
func (c *Control) Revisions(ctx context.Context, user, name string, below, limit int) ([]faena.Revision, error) {
	if _, err := c.o.Documents.Function(ctx, user, name); err != nil {
		return nil, err
	}
	return c.o.Documents.Revisions(ctx, user, name, below, limit)
}

// Rollback makes an earlier revision the one that serves: the given number, or with 0 the one with the next lower number.
// KindInvalid where its group is not there, or not granted, any more.
func (c *Control) Rollback(ctx context.Context, user, name string, number int, cond faena.Condition) (faena.Function, faena.Revision, error) {
	if number == 0 {
		f, err := c.o.Documents.Function(ctx, user, name)
		if err != nil {
			return faena.Function{}, faena.Revision{}, err
		}
		if err := cond.Check(f, true); err != nil {
			return faena.Function{}, faena.Revision{}, err
		}
		before, err := c.o.Documents.Revisions(ctx, user, name, f.Current, 1)
		if err != nil {
			return faena.Function{}, faena.Revision{}, err
		}
		if len(before) == 0 {
			return faena.Function{}, faena.Revision{}, &faena.Error{Kind: faena.KindConflict, Reason: "no_earlier_revision",
				Component: faena.ComponentCaller, Message: fmt.Sprintf("Function %q has no revision before %d.", name, f.Current)}
		}
		number = before[0].Number
	}
	rev, err := c.o.Documents.Revision(ctx, user, name, number)
	if err != nil {
		return faena.Function{}, faena.Revision{}, err
	}
	if _, err := c.usable(ctx, user, rev.Spec.Group); err != nil {
		return faena.Function{}, faena.Revision{}, err
	}
	f, err := c.o.Documents.SetCurrent(ctx, user, name, number, cond)
	if err != nil {
		return faena.Function{}, faena.Revision{}, err
	}
	c.announce(changedFunction, user, name)
	return f, rev, nil
}

// Delete removes a function and all its revisions, and ends what is queued of it, in slots and in the backlog. What runs goes on,
// and the history stays.
func (c *Control) Delete(ctx context.Context, user, name string, cond faena.Condition) error {
	if err := c.o.Documents.DeleteFunction(ctx, user, name, cond); err != nil {
		return err
	}
	c.announce(changedFunction, user, name)
	err := c.eachLive(ctx, user, func(r *faena.Record) error {
		if r.Function != name || r.State != faena.StateQueued {
			return nil
		}
		_, err := c.endQueued(ctx, r, faena.ReasonFunctionDeleted, "The function was deleted before the activation started.")
		return err
	})
	if err != nil {
		c.log.Warn("activations of a deleted function stay queued and will run", "user", user, "function", name, "error", err)
	}
	return nil
}
