package ui_test

import (
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// TestLinksLeadSomewhere follows every link of every page once: none is broken,
// and no filter that a page links to is one that cannot be read.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	seen := map[string]bool{}
	for name, path := range pages(s) {
		if name == "missing" || name == "wrong" {
			continue
		}
		_, doc := get(t, u, path)
		for _, n := range all(doc, func(n *html.Node) bool { return tag("a")(n) && strings.HasPrefix(attr(n, "href"), "/") }) {
			href := attr(n, "href")
			at, err := url.Parse(href)
			if err != nil {
				t.Errorf("%s links to %q: %v", name, href, err)
				continue
			}
			// One of each kind: the path with the names of its parameters and its
			// filter.
			kind := at.Path + " " + at.Query().Get("q")
			if strings.HasPrefix(at.Path, "/messages/") {
				kind = "/messages/{uid}" + at.Query().Get("as") + " of " + name
			}
			if seen[kind] || strings.HasPrefix(at.Path, "/api/") {
				continue
			}
			seen[kind] = true
			w, to := get(t, u, href)
			if w.Code >= 400 {
				t.Errorf("%s links to %s: %d", name, href, w.Code)
			}
			if strings.Contains(mainText(to), "filter cannot be read") {
				t.Errorf("%s links to %s, whose filter cannot be read", name, href)
			}
		}
	}
	if len(seen) < 20 {
		t.Errorf("only %d kinds of links", len(seen))
	}
}
