package access_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus/access"
)

var update = flag.Bool("update", false, "write the golden files")

// TestRoles keeps the table in sight: a change of it is a change of a file that
// a reviewer reads.
func TestRoles(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	roles := append(access.Roles(), access.Sender, access.Agent, access.Enroller)
	fmt.Fprintf(&b, "%-18s", "")
	for _, r := range roles {
		fmt.Fprintf(&b, "%-10s", r)
	}
	b.WriteString("\n")
	for _, a := range access.Actions() {
		fmt.Fprintf(&b, "%-18s", a)
		for _, r := range roles {
			mark := "-"
			if (access.Identity{Kind: access.KindUser, Grants: access.Everywhere(r)}).Can(a, "prod", "orders") {
				mark = "yes"
			}
			fmt.Fprintf(&b, "%-10s", mark)
		}
		b.WriteString("\n")
	}
	got := regexp.MustCompile(` +\n`).ReplaceAllString(b.String(), "\n")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/roles.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/roles.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
}

func TestTheLadderOnlyGrows(t *testing.T) {
	t.Parallel()
	roles := access.Roles()
	for i := 1; i < len(roles); i++ {
		if !roles[i].Covers(roles[i-1]) || roles[i-1].Covers(roles[i]) {
			t.Errorf("%s does not stand above %s", roles[i], roles[i-1])
		}
	}
	for _, r := range []access.Role{access.Sender, access.Agent, access.Enroller} {
		for _, a := range []access.Action{access.ViewMetadata, access.ReadBody, access.ManageUsers} {
			if r.May(a) {
				t.Errorf("%s may %s", r, a)
			}
		}
	}
}

func TestNobodyMayNothing(t *testing.T) {
	t.Parallel()
	id, ok := access.From(t.Context())
	if ok {
		t.Error("an empty context has an identity")
	}
	for _, a := range access.Actions() {
		if got, want := id.Can(a, "prod", "orders"), a == access.Public; got != want {
			t.Errorf("%s: got %v, want %v", a, got, want)
		}
		if !id.Scope(a).None() {
			t.Errorf("%s: the scope of nobody allows something", a)
		}
	}
	if access.Action("made.up").Known() || access.Action("").Known() {
		t.Error("an action that is not in the table is known")
	}
}

func TestGlobalActionsNeedAGrantForEverything(t *testing.T) {
	t.Parallel()
	part := access.Identity{Kind: access.KindUser, Grants: []access.Grant{{Role: access.Admin, Env: "prod", Channel: "*"}}}
	if part.Can(access.ManageUsers, "prod", "orders") || part.Somewhere(access.ManageUsers) {
		t.Error("who administers one environment manages the users of all")
	}
	if !part.Can(access.ReadBody, "prod", "orders") || part.Can(access.ReadBody, "test", "orders") || !part.Somewhere(access.ReadBody) {
		t.Error("what is about one environment does not follow it")
	}
}
