package filter

import "slices"

// Only says that no field but the named ones decides. Names are those of the
// registry; aliases do not count.
func (f *Filter) Only(names ...string) bool { return f.Empty() || f.root.only(names) }

func (n *node) only(names []string) bool {
	if n.op <= opNot {
		return !slices.ContainsFunc(n.kids, func(k *node) bool { return !k.only(names) })
	}
	return slices.Contains(names, n.field.Name)
}

// Word is a word or phrase that the body of every match has, as it was
// written, for showing where it stands; empty where there is none.
func (f *Filter) Word() string {
	for _, n := range f.top() {
		if n.op == opWord {
			return n.vals[0].text
		}
	}
	return ""
}
