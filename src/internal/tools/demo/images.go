package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// base is the image of the Debian root file system, which three of the functions are layers on.
const base = "faena-demo/debian:latest"

// The picture is ImageMagick's own wizard, made as large as a photograph and as noisy.
var photograph = strings.Fields("convert wizard: -resize 400% -seed 7 -attenuate 0.3 +noise Gaussian -quality 88 jpg:-")

// prepare makes the images and the input, and runs each image once without Faena, to know what has to come out.
func prepare(ctx context.Context, p *progress, dir string, functions []*function) error {
	var root string
	err := p.step("Debian "+suite+" with "+packages, func(say func(string)) (err error) {
		root, err = rootArchive(ctx, say)
		return err
	})
	if err != nil {
		return err
	}
	err = p.step("make the images", func(say func(string)) error {
		say("from the root file system")
		if err := removeImages(ctx); err != nil { // of a demo that was killed
			return err
		}
		if err := importDebian(ctx, root); err != nil {
			return err
		}
		for _, f := range functions {
			say(f.name)
			if err := makeImage(ctx, dir, f); err != nil {
				return err
			}
		}
		say("")
		return nil
	})
	if err != nil {
		return err
	}
	return p.step("run each image once with docker run", func(say func(string)) error {
		for _, f := range functions {
			say(f.name)
			if err := reference(ctx, f); err != nil {
				return err
			}
		}
		say("")
		return nil
	})
}

func importDebian(ctx context.Context, archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = docker(ctx, f, "import", "--change", "ENV LC_ALL=C.UTF-8", "-", base)
	return err
}

func makeImage(ctx context.Context, dir string, f *function) error {
	switch f.name {
	case "factor":
		program := filepath.Join(dir, "factor")
		// In testdata, where go build ./... does not see it: it is no part of Faena.
		if err := command(ctx, nil, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./internal/tools/demo/testdata/factor"); err != nil {
			return err
		}
		data, err := os.ReadFile(program)
		if err != nil {
			return err
		}
		layer, err := archive("factor", 0o755, data)
		if err != nil {
			return err
		}
		_, err = docker(ctx, layer, "import", "--change", entrypoint(f), "-", f.image())
		return err
	case "wordstat":
		layer, err := archive(strings.TrimPrefix(scriptPath, "/"), 0o644, wordstat)
		if err != nil {
			return err
		}
		return onDebian(ctx, f, layer)
	default:
		return onDebian(ctx, f, nil)
	}
}

// onDebian makes an image of the base with a layer on top, which may be nil.
func onDebian(ctx context.Context, f *function, layer io.Reader) (err error) {
	out, err := docker(ctx, nil, "create", "--label", label, base, "/bin/true")
	if err != nil {
		return err
	}
	container := strings.TrimSpace(string(out))
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanWithin)
		defer cancel()
		if _, e := docker(ctx, nil, "rm", container); err == nil {
			err = e
		}
	}()
	if layer != nil {
		if _, err := docker(ctx, layer, "cp", "-", container+":/"); err != nil {
			return err
		}
	}
	_, err = docker(ctx, nil, "commit", "--change", entrypoint(f), "--change", "CMD []", container, f.image())
	return err
}

// entrypoint is the line of a Dockerfile.
func entrypoint(f *function) string {
	return `ENTRYPOINT ["` + strings.Join(f.entrypoint, `","`) + `"]`
}

// archive makes a tar of one file.
func archive(name string, mode int64, data []byte) (io.Reader, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	return &b, w.Close()
}

// reference finds the input of a function that has none yet, and what the image makes of it without Faena.
func reference(ctx context.Context, f *function) (err error) {
	plain := []string{"run", "--rm", "--interactive", "--network", "none", "--label", label}
	debian := func(args ...string) ([]byte, error) {
		return docker(ctx, nil, slices.Concat(plain, []string{base}, args)...)
	}
	switch f.name {
	case "thumbnail":
		f.parameter, err = debian(photograph...)
	case "wordstat":
		f.parameter, err = debian("cat", "/usr/share/common-licenses/GPL-3")
	}
	if err != nil {
		return err
	}
	args := slices.Concat(plain, []string{f.image()}, f.spec.Args)
	var stdin io.Reader
	if f.asArgument() {
		args = append(args, string(f.parameter))
	} else {
		stdin = bytes.NewReader(f.parameter)
	}
	begin := time.Now()
	if f.want, err = docker(ctx, stdin, args...); err != nil {
		return err
	}
	f.took = time.Since(begin)
	if _, err = f.summary(f.want); err != nil {
		return fmt.Errorf("docker run of %s: %w", f.name, err)
	}
	return nil
}
