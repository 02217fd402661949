package xsstest

import (
	"slices"
	"testing"
)

func TestThereAre200DifferentPayloads(t *testing.T) {
	t.Parallel()
	all := Payloads()
	slices.Sort(all)
	if n := len(slices.Compact(all)); n < 200 || n != len(Payloads()) {
		t.Errorf("%d different payloads of %d, want at least 200, all different", n, len(Payloads()))
	}
}
