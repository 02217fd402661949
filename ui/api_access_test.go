package ui_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// TestATokenSeesOfTheAPIWhatItsOwnerMay shows programs the same borders as
// pages: what is withheld is said, and nothing of it leaves.
func TestATokenSeesOfTheAPIWhatItsOwnerMay(t *testing.T) {
	t.Parallel()
	p := newPeople(t, access.DefaultPrivacy())
	token := func(grants ...access.Grant) string {
		_, secret, err := p.svc.CreateToken(p.ctx(), p.root, access.NewToken{Name: "script", Grants: grants})
		if err != nil {
			t.Fatal(err)
		}
		return secret.Reveal()
	}
	viewer := token(access.Grant{Role: access.Viewer, Env: "production", Channel: "payments.*"})
	reader := token(access.Grant{Role: access.Reader})
	get := func(as, path string, want int) map[string]any {
		t.Helper()
		w := p.ask(as, "GET", v1+path)
		var out map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != want {
			t.Fatalf("%s: got %d %s (%v), want %d", path, w.Code, w.Body, err, want)
		}
		return out
	}
	me := get(viewer, "/whoami", 200)
	if g := me["grants"].([]any); len(g) != 1 || g[0].(map[string]any)["role"] != "viewer" || g[0].(map[string]any)["channel"] != "payments.*" || me["kind"] != "token" {
		t.Errorf("whoami: %v", me)
	}
	for _, m := range get(viewer, "/messages?snippets=true&limit=1000", 200)["messages"].([]any) {
		if m := m.(map[string]any); !strings.HasPrefix(m["channel"].(string), "payments.") || m["snippet"] != nil {
			t.Fatalf("a viewer of payments.* sees %v", m)
		}
	}
	all := get(reader, "/messages?snippets=true&limit=1000", 200)["messages"].([]any)
	var payment, other string
	for _, m := range all {
		if m := m.(map[string]any); strings.HasPrefix(m["channel"].(string), "payments.") {
			payment = m["uid"].(string)
		} else {
			other = m["uid"].(string)
		}
	}
	body := get(viewer, "/messages/"+payment, 200)["body"].(map[string]any)
	if body["stored"] != false || body["content"] != nil || !strings.Contains(body["withheld"].(string), "reader") {
		t.Errorf("a viewer's body: %v", body)
	}
	if body := get(reader, "/messages/"+payment, 200)["body"].(map[string]any); body["content"] == nil || body["withheld"] != nil {
		t.Errorf("a reader's body: %v", body)
	}
	get(viewer, "/messages/"+other, http.StatusNotFound)
	for _, path := range []string{"/messages/" + payment + "/body", "/messages/export", "/messages?q=GatewayTimeout", "/messages?q=body.attempt+%3D+3", "/messages?q=NOT+body:x"} {
		if got := get(viewer, path, http.StatusForbidden); !strings.HasSuffix(got["type"].(string), ":denied") || got["detail"] == "" {
			t.Errorf("%s: %v", path, got)
		}
	}
	for _, as := range []string{"", "sbx_" + strings.Repeat("x", 50)} {
		if got := get(as, "/messages", http.StatusUnauthorized); !strings.HasSuffix(got["type"].(string), ":unauthenticated") {
			t.Errorf("%q: %v", as, got)
		}
	}
	// What a file holds is what its owner may see.
	w := p.ask(token(access.Grant{Role: access.Reader, Channel: "payments.*"}), "GET", v1+"/messages/export?bodies=true")
	if w.Code != 200 || strings.Contains(w.Body.String(), `"channel":"orders.`) || !strings.Contains(w.Body.String(), `"channel":"payments.`) {
		t.Errorf("an export of payments.*: %d %.300s", w.Code, w.Body)
	}
}
