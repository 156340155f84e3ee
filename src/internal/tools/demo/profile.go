package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// readProfile finds the credentials of the first user in the profile that `faena up` has written below dir. Of the
// command line's own files the demo knows only this: a profile is JSON, and has them as username and password.
func readProfile(dir string) (user, password string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) != ".json" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var content any
		if json.Unmarshal(text, &content) != nil {
			return nil // no profile
		}
		if user, password = credentialsIn(content); user != "" {
			return fs.SkipAll
		}
		return nil
	})
	if err == nil && user == "" {
		err = errors.New("there is no profile with the first user's password below " + dir)
	}
	return user, password, err
}

// credentialsIn looks for an object with a user and a password, at any depth.
func credentialsIn(content any) (user, password string) {
	object, ok := content.(map[string]any)
	if !ok {
		return "", ""
	}
	if password, ok := object["password"].(string); ok {
		for _, key := range []string{"username", "user"} {
			if user, ok := object[key].(string); ok {
				return user, password
			}
		}
	}
	for _, inner := range object {
		if user, password := credentialsIn(inner); user != "" {
			return user, password
		}
	}
	return "", ""
}
