package filter

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table of fields in docs/filter.md")

func TestTheReferenceHasEveryField(t *testing.T) {
	t.Parallel()
	const path, begin, end = "../../docs/filter.md", "<!-- fields: generated from the registry by go test ./controlbus/filter -update -->\n", "<!-- end of fields -->"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(raw), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s lacks the marks of the table", path)
	}
	var b strings.Builder
	b.WriteString("| field | also | holds | means | such as |\n|---|---|---|---|---|\n")
	code := func(list []string) string {
		out := make([]string, len(list))
		for i, s := range list {
			out[i] = "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
		}
		return strings.Join(out, " ")
	}
	for _, f := range Fields() {
		name := f.Name
		switch f.Name {
		case "header.":
			name = "header.<name>"
		case "body.":
			name = "body.<path>"
		}
		holds := string(f.Type)
		if f.Values != nil {
			holds += " " + code(f.Values)
		}
		b.WriteString("| `" + name + "` | " + code(f.Aliases) + " | " + holds + " | " + f.Doc + " | " + code(f.Examples) + " |\n")
	}
	want := head + begin + b.String() + end + tail
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(raw) {
		t.Errorf("%s is not up to date: go test ./controlbus/filter -update", path)
	}
}

func TestExamplesAreRight(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../docs/filter.md")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for i, part := range strings.Split(string(raw), "```") {
		if lines, ok := strings.CutPrefix(part, "filter\n"); ok && i%2 == 1 {
			list = append(list, strings.Split(strings.TrimSpace(lines), "\n")...)
		}
	}
	if len(list) < 8 {
		t.Errorf("only %d examples in the reference", len(list))
	}
	for _, f := range Fields() {
		if len(f.Examples) == 0 || f.Doc == "" {
			t.Errorf("%s has no example or no meaning", f.Name)
		}
		list = append(list, f.Examples...)
	}
	for _, text := range list {
		if _, err := Parse(text, testNow); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Names and aliases are unique, and no name can be mistaken for a keyword.
func TestNamesOfFieldsAreUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, f := range Fields() {
		for _, name := range append([]string{f.Name}, f.Aliases...) {
			low := strings.ToLower(name)
			if seen[low] != "" || isKeyword(strings.ToUpper(name)) {
				t.Errorf("%s of %s is taken by %s, or a keyword", name, f.Name, seen[low])
			}
			seen[low] = f.Name
		}
		if f.Type == Enum != (f.Values != nil) || slices.Contains(f.Operators(), "") {
			t.Errorf("%s: type %s with values %v", f.Name, f.Type, f.Values)
		}
	}
}
