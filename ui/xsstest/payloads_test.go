package xsstest

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

func TestThereAre200DifferentPayloads(t *testing.T) {
	t.Parallel()
	all := Payloads()
	slices.Sort(all)
	if n := len(slices.Compact(all)); n < 200 || n != len(Payloads()) {
		t.Errorf("%d different payloads of %d, want at least 200, all different", n, len(Payloads()))
	}
}

// A page that writes texts as they are gets elements, handlers or addresses of
// most payloads'. The others are for other readers: terminals, spreadsheets,
// template engines, eyes.
func TestPayloadsBite(t *testing.T) {
	t.Parallel()
	bitten := 0
	for _, p := range Payloads() {
		doc, err := html.Parse(strings.NewReader("<!doctype html><title>x</title><main><a href=\"" + p + "\">" + p + "</a></main>"))
		if err != nil {
			t.Fatal(err)
		}
		if strange(doc) {
			bitten++
		}
	}
	t.Logf("%d of %d payloads leave something on a page without defence", bitten, len(Payloads()))
	if bitten < 160 {
		t.Errorf("only %d payloads leave something on a page without defence", bitten)
	}
}

func strange(n *html.Node) bool {
	if n.Type == html.ElementNode && !slices.Contains([]string{"html", "head", "title", "body", "main", "a"}, n.Data) {
		return true
	}
	for _, a := range n.Attr {
		if strings.HasPrefix(a.Key, "on") || a.Key == "href" && (strings.Contains(a.Val, ":") || strings.HasPrefix(a.Val, "//")) {
			return true
		}
	}
	for c := range n.ChildNodes() {
		if strange(c) {
			return true
		}
	}
	return false
}
