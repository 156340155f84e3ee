package dockerengine

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"faena.dev/faena/internal/faena"
)

// Image is one image that the engine has.
type Image struct {
	ID    string
	Refs  []string // repository@digest and repository:tag
	Size  int64    // bytes on disk, layers that it shares with others included
	InUse bool     // a container refers to it, running or not
}

// HasImage reports whether the engine has an image of that name, digest or id that this host can run.
func (e *Engine) HasImage(ctx context.Context, ref string) (bool, error) {
	ctx, done := e.deadline(ctx, e.timeouts.Call)
	defer done()
	img, err := e.client.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, e.failed(ctx, "inspect image", err)
	}
	return e.runs(img.Os, img.Architecture), nil // of another platform it stays after the pull that was refused for it
}

// present is KindNotFound where the engine has no such image, and image_platform where this host cannot run it.
func (e *Engine) present(ctx context.Context, ref string) error {
	ctx, done := e.deadline(ctx, e.timeouts.Call)
	defer done()
	if _, err := e.client.ImageInspect(ctx, ref); errdefs.IsNotFound(err) {
		return faena.NotFound("image", ref)
	}
	return e.checkPlatform(ctx, ref)
}

// runs reports whether this host can run images of a platform; where an image does not say, it may.
func (e *Engine) runs(os, arch string) bool {
	return (os == "" || os == "linux") && (arch == "" || arch == e.info.Arch)
}

// Images lists what the engine has, whoever put it there.
func (e *Engine) Images(ctx context.Context) ([]Image, error) {
	ctx, done := e.deadline(ctx, e.timeouts.Call)
	defer done()
	list, err := e.client.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return nil, e.failed(ctx, "list images", err)
	}
	// After the images, so that a container made meanwhile is seen.
	used, err := e.usedImages(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Image, 0, len(list))
	for _, s := range list {
		refs := slices.DeleteFunc(slices.Concat(s.RepoDigests, s.RepoTags), func(r string) bool { return strings.HasPrefix(r, "<none>") })
		out = append(out, Image{ID: s.ID, Refs: refs, Size: s.Size, InUse: used[s.ID]})
	}
	return out, nil
}

func (e *Engine) usedImages(ctx context.Context) (map[string]bool, error) {
	list, err := e.client.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return nil, e.failed(ctx, "list containers", err)
	}
	used := make(map[string]bool, len(list))
	for _, c := range list {
		used[c.ImageID] = true
	}
	return used, nil
}

// RemoveImage removes an image with all its names. One that a container refers to is KindConflict and stays; one that
// is absent is no error.
func (e *Engine) RemoveImage(ctx context.Context, id string) error {
	ctx, done := e.deadline(ctx, e.timeouts.Remove)
	defer done()
	img, err := e.client.ImageInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return e.failed(ctx, "inspect image", err)
	}
	used, err := e.usedImages(ctx)
	if err != nil {
		return err
	}
	if used[img.ID] {
		return imageInUse(id, nil)
	}
	// Name by name and never by force: force takes an image away from a container that is not running.
	for _, name := range append(slices.Concat(img.RepoTags, img.RepoDigests), img.ID) {
		_, err := e.client.ImageRemove(ctx, name, image.RemoveOptions{PruneChildren: true})
		switch {
		case errdefs.IsConflict(err):
			return imageInUse(id, err)
		case err != nil && !errdefs.IsNotFound(err):
			return e.failed(ctx, "remove image", err)
		}
	}
	return nil
}

func imageInUse(id string, err error) error {
	return &faena.Error{Kind: faena.KindConflict, Reason: "image_in_use", Component: faena.ComponentEngine,
		Message: fmt.Sprintf("Image %s is in use.", id), Err: err}
}

// SaveImage exports an image as `docker save` does. The caller closes the stream. KindNotFound where it is absent.
func (e *Engine) SaveImage(ctx context.Context, ref string) (io.ReadCloser, error) {
	if err := e.present(ctx, ref); err != nil {
		return nil, err
	}
	ctx, done := e.deadline(ctx, e.timeouts.Pull)
	stream, err := e.client.ImageSave(ctx, []string{ref})
	if err != nil {
		defer done()
		return nil, e.failed(ctx, "save image", err)
	}
	return &export{ReadCloser: stream, done: done}, nil
}

// export is a stream that lets go of its deadline when it is closed.
type export struct {
	io.ReadCloser
	done context.CancelFunc
}

func (x *export) Close() error {
	defer x.done()
	return x.ReadCloser.Close()
}

// Disk is the file system that holds the engine's images and containers.
type Disk struct {
	TotalBytes int64 // 0 where it cannot be known: the engine is on another host
	FreeBytes  int64 // for the engine, which runs as root
}

// DiskUsage looks at the file system of the engine's root directory.
func (e *Engine) DiskUsage(context.Context) (Disk, error) {
	if !e.local() {
		return Disk{}, nil
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(e.info.RootDir, &fs); err != nil {
		return Disk{}, fmt.Errorf("look at the disk of the engine: %w", err)
	}
	size := int64(fs.Bsize)
	return Disk{TotalBytes: int64(fs.Blocks) * size, FreeBytes: int64(fs.Bfree) * size}, nil
}
