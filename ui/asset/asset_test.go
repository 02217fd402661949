package asset_test

import (
	"math"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/signalbox-dev/signalbox/ui/asset"
)

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimPrefix(hex, "#"), 16, 32)
	if err != nil {
		t.Fatalf("colour %q: %v", hex, err)
	}
	channel := func(shift int) float64 {
		c := float64(n>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*channel(16) + 0.7152*channel(8) + 0.0722*channel(0)
}

func contrast(t *testing.T, a, b string) float64 {
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// TestTokensHaveContrast measures the colours in both themes: 4.5 to 1 for text
// on every ground it is used on, 3 to 1 for borders of controls and chart lines.
func TestTokensHaveContrast(t *testing.T) {
	t.Parallel()
	css, err := os.ReadFile("css/tokens.css")
	if err != nil {
		t.Fatal(err)
	}
	root, _, _ := strings.Cut(string(css), "@media")
	tokens := map[string][2]string{}
	for _, m := range regexp.MustCompile(`--([\w-]+):\s*light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)`).FindAllStringSubmatch(root, -1) {
		tokens[m[1]] = [2]string{m[2], m[3]}
	}
	for _, m := range regexp.MustCompile(`--(env-[\w-]+):\s*(#[0-9a-f]{6});`).FindAllStringSubmatch(root, -1) {
		tokens[m[1]] = [2]string{m[2], m[2]}
	}
	if len(tokens) < 50 {
		t.Fatalf("read %d tokens only; the file's form has changed", len(tokens))
	}
	grounds := []string{"bg", "surface", "surface-2"}
	check := func(fg, ground string, want float64) {
		for i, theme := range []string{"light", "dark"} {
			f, okF := tokens[fg]
			g, okG := tokens[ground]
			if !okF || !okG {
				t.Fatalf("no token %s or %s", fg, ground)
			}
			if got := contrast(t, f[i], g[i]); got < want {
				t.Errorf("%s: %s on %s is %.2f:1, want %.1f:1", theme, fg, ground, got, want)
			}
		}
	}
	for _, g := range grounds {
		for _, fg := range []string{"ink", "ink-2", "ink-3", "accent", "syn-key", "syn-str", "syn-num", "syn-lit"} {
			check(fg, g, 4.5)
		}
		for _, fg := range []string{"line-control", "s1", "s2", "s3", "s4", "s5", "s6", "s-rest"} {
			check(fg, g, 3)
		}
	}
	for _, s := range []string{"clear", "caution", "stop", "move", "held", "off"} {
		check(s+"-fg", s+"-soft", 4.5)
		check("ink", s+"-soft", 4.5)
		for _, g := range grounds {
			check(s+"-fg", g, 4.5)
		}
	}
	for _, e := range []string{"production", "staging", "test", "development"} {
		check("env-ink", "env-"+e, 4.5)
	}
	check("rail-ink", "rail", 4.5)
	check("rail-ink-2", "rail", 4.5)
	check("rail-ink-2", "rail-2", 4.5)
	check("on-solid", "ink", 4.5)
	check("ink", "hit", 4.5)
	check("ink-2", "surface-3", 4.5)
	check("ink", "accent-soft", 4.5)
	check("accent", "accent-soft", 4.5)
}

func TestAssetsAreServedForEverAndOnlyTheyAre(t *testing.T) {
	t.Parallel()
	s, err := asset.Load(fstest.MapFS{
		"manifest.json": {Data: []byte(`{"app.js":"app-ABCDEFGH.js"}`)}, "app-ABCDEFGH.js": {Data: []byte(strings.Repeat("let x;", 100))}, "secret.txt": {Data: []byte("no")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.URL("app.js"), "/assets/app-ABCDEFGH.js"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for path, want := range map[string]int{"/assets/app-ABCDEFGH.js": 200, "/assets/secret.txt": 404, "/assets/manifest.json": 404, "/assets/../asset.go": 404} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Accept-Encoding", "gzip")
		s.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: got %d, want %d", path, w.Code, want)
		}
		if want == 200 && (w.Header().Get("Content-Encoding") != "gzip" || !strings.Contains(w.Header().Get("Cache-Control"), "immutable")) {
			t.Errorf("%s: headers %v", path, w.Header())
		}
	}
}

func TestAProgramWithoutAssetsStillLoads(t *testing.T) {
	t.Parallel()
	s, err := asset.Load(fstest.MapFS{"README": {Data: []byte("x")}})
	if err != nil || s.Built() || s.URL("app.js") != "" {
		t.Errorf("got %v, built %v, %q", err, s.Built(), s.URL("app.js"))
	}
	if _, err := asset.Load(fstest.MapFS{"manifest.json": {Data: []byte(`{"app.js":"gone.js"}`)}}); err == nil {
		t.Error("a manifest that names a missing file loads")
	}
}
