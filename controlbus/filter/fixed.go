package filter

import "slices"

// Fixed is the filter with the times that were relative when it was parsed
// written out: its text means the same whenever it is read again.
func (f *Filter) Fixed() *Filter {
	if f.Empty() {
		return f
	}
	return newFilter(f.root.fixed())
}

func (n *node) fixed() *node {
	c := *n
	c.kids = make([]*node, len(n.kids))
	for i, k := range n.kids {
		c.kids[i] = k.fixed()
	}
	c.vals = slices.Clone(n.vals)
	for i := range c.vals {
		c.vals[i].rel = ""
	}
	return &c
}
