package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Where the packages' API is installed, root does not begin a second appliance by mistake.
func TestSecond(t *testing.T) {
	unit := filepath.Join(t.TempDir(), "faena-api.service")
	if err := second(unit); err != nil {
		t.Errorf("without a unit: %v", err)
	}
	if err := os.WriteFile(unit, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := second(unit); err == nil || !strings.Contains(err.Error(), "systemctl status") || !strings.Contains(err.Error(), "FAENA_DATA_DIR") {
		t.Errorf("with one: %v", err)
	}
}
