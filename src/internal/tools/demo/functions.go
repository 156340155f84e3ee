package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"image/png"
	"strings"
	"time"

	"faena.dev/faena/internal/client"
)

//go:embed testdata/wordstat.py
var wordstat []byte

// debianPackages is what dpkg-query says of the packages of a small Debian system.
//
//go:embed testdata/packages.json
var debianPackages []byte

// scriptPath is where the image has the Python script.
const scriptPath = "/usr/local/bin/wordstat.py"

// function is an image with what is asked of it.
type function struct {
	name       string
	about      string
	entrypoint []string // of the image
	private    bool     // its image is in the registry that asks for a password
	spec       client.Spec
	parameter  []byte
	summary    func(result []byte) (string, error) // in one line; an error where the result makes no sense

	want []byte        // what a plain docker run of the image makes of the parameter
	took time.Duration // by that docker run
}

// image is what the engine knows the image by until it is pushed.
func (f *function) image() string { return "faena-demo/" + f.name + ":latest" }

// asArgument reports whether the parameter is the last argument; otherwise it is standard input.
func (f *function) asArgument() bool { return f.spec.Input != client.InputStdin }

// demoFunctions are the functions; the parameters of those without one are made by prepare.
func demoFunctions() []*function {
	return []*function{{
		name:       "factor",
		about:      "a static binary from scratch",
		entrypoint: []string{"/factor"},
		parameter:  []byte("1000036000099"),
		summary:    text,
	}, {
		name:       "jq",
		about:      "Debian's jq, from the registry that asks for a password",
		entrypoint: []string{"jq"},
		private:    true,
		spec: client.Spec{Input: client.InputStdin, Args: []string{"--compact-output",
			`map(select(.installed_kib > 8192)) | sort_by(-.installed_kib) | map("\(.package) \(.installed_kib / 1024 | floor) MiB") | .[:4]`}},
		parameter: debianPackages,
		summary:   jsonText,
	}, {
		name:       "thumbnail",
		about:      "Debian's ImageMagick: a picture in, a picture out",
		entrypoint: []string{"convert"},
		spec: client.Spec{Input: client.InputStdin, MemoryBytes: 256 << 20,
			Args: []string{"-", "-thumbnail", "160x160", "-strip", "-define", "png:exclude-chunks=date,time", "png:-"}},
		summary: picture,
	}, {
		name:       "wordstat",
		about:      "a Python script",
		entrypoint: []string{"python3", scriptPath},
		spec:       client.Spec{Input: client.InputStdin},
		summary:    jsonText,
	}}
}

func text(result []byte) (string, error) {
	s := strings.TrimSpace(string(result))
	if s == "" {
		return "", fmt.Errorf("the result is empty")
	}
	return s, nil
}

func jsonText(result []byte) (string, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, result); err != nil {
		return "", fmt.Errorf("the result is no JSON: %w", err)
	}
	return b.String(), nil
}

// picture takes a PNG of at most 160 × 160.
func picture(result []byte) (string, error) {
	config, err := png.DecodeConfig(bytes.NewReader(result))
	if err != nil {
		return "", fmt.Errorf("the result is no PNG: %w", err)
	}
	if max(config.Width, config.Height) != 160 {
		return "", fmt.Errorf("the thumbnail is %d × %d", config.Width, config.Height)
	}
	return fmt.Sprintf("PNG %d × %d, %s", config.Width, config.Height, size(len(result))), nil
}
