package apitest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheClientIsUpToDate makes the client again and wants the one that is
// committed.
func TestTheClientIsUpToDate(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the generator")
	}
	const root = "../../.."
	out := filepath.Join(t.TempDir(), "client.gen.go")
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-modfile=deploy/tools/go.mod", "oapi-codegen", "-config", "ui/api/apitest/oapi-codegen.yaml", "-o", out, "ui/api/openapi.yaml")
	cmd.Dir = root
	if said, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("SIGNALBOX_TEST_STRICT") != "1" && strings.Contains(string(said), "download") {
			t.Skipf("missing: oapi-codegen, which could not be fetched: %s", said)
		}
		t.Fatalf("oapi-codegen: %v\n%s", err, said)
	}
	want, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("client.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("client.gen.go is not what oapi-codegen makes of openapi.yaml: run make generate")
	}
}
