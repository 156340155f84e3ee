package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// network is what the appliance of the demo connects its containers to, so that it can be removed afterwards.
const network = "faena-demo"

// What the engine knows the images by: until they are pushed, and as the appliance pulls them.
const (
	localImages  = "faena-demo/*"
	pulledImages = "127.0.0.1:*/faena-demo/*"
)

// docker runs the engine's command line and returns what it writes.
func docker(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	var out bytes.Buffer
	complaints := &lineWriter{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, complaints
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("docker %s: %w: %s", args[0], err, bytes.TrimSpace(complaints.tail))
	}
	return out.Bytes(), nil
}

// list runs a docker command that writes one id on each line.
func list(ctx context.Context, args ...string) ([]string, error) {
	out, err := docker(ctx, nil, args...)
	ids := strings.Fields(string(out))
	slices.Sort(ids)
	return slices.Compact(ids), err
}

// removeImages makes the engine forget every image of the demo, so that what comes next is really pulled.
func removeImages(ctx context.Context) error {
	// By name: one that others are layers on goes with the last of them, but cannot be removed before by its id.
	made, err := list(ctx, "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference="+localImages)
	if err != nil {
		return err
	}
	pulled, err := list(ctx, "images", "--quiet", "--no-trunc", "--filter", "reference="+pulledImages)
	if all := append(made, pulled...); err == nil && len(all) > 0 {
		_, err = docker(ctx, nil, append([]string{"rmi", "--force"}, all...)...)
	}
	return err
}

// removeNetwork removes the network of the demo. Containers that are still on it are removed too, and an error:
// the appliance should have done that.
func removeNetwork(ctx context.Context) error {
	if found, err := list(ctx, "network", "ls", "--quiet", "--filter", "name=^"+network+"$"); err != nil || len(found) == 0 {
		return err
	}
	left, err := list(ctx, "ps", "--all", "--quiet", "--filter", "network="+network)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		if _, err := docker(ctx, nil, append([]string{"rm", "--force"}, left...)...); err != nil {
			return err
		}
	}
	if _, err := docker(ctx, nil, "network", "rm", network); err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("the appliance left %d containers behind", len(left))
	}
	return nil
}
