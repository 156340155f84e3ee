package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// network is what the appliance of the demo connects its containers to, so that it can be removed afterwards.
const network = "faena-demo"

// What the engine knows the images by: until they are pushed, and as the appliance pulls them.
const (
	localImages  = "faena-demo/*"
	pulledImages = "127.0.0.1:*/faena-demo/*"
)

// label is on every container that the demo makes itself.
const label = "faena-demo"

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
	// A command line that was interrupted has left its container to itself.
	if _, err := removeContainers(ctx, "label="+label); err != nil {
		return err
	}
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
	left, err := removeContainers(ctx, "network="+network)
	if err != nil {
		return err
	}
	if _, err := docker(ctx, nil, "network", "rm", network); err != nil {
		return err
	}
	if left > 0 {
		return fmt.Errorf("the appliance left %d containers behind", left)
	}
	return nil
}

// removeContainers removes the containers that a filter finds, until it finds none: some may be about to end and be
// removed by themselves. It returns how many there were at first.
func removeContainers(ctx context.Context, filter string) (found int, err error) {
	for {
		ids, err := list(ctx, "ps", "--all", "--quiet", "--filter", filter)
		if err != nil || len(ids) == 0 {
			return found, err
		}
		found = max(found, len(ids))
		_, err = docker(ctx, nil, append([]string{"rm", "--force"}, ids...)...)
		select {
		case <-ctx.Done():
			return found, errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
