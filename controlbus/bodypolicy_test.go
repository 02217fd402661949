package controlbus_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestTapSpecCarriesItsBodyPolicyAsText(t *testing.T) {
	t.Parallel()
	for policy, text := range map[controlbus.BodyPolicy]string{
		controlbus.BodyFull:     `{"id":"t","broker":"","channel":"","origin":""}`,
		controlbus.BodyHash:     `{"id":"t","broker":"","channel":"","body":"hash","origin":""}`,
		controlbus.BodyMetadata: `{"id":"t","broker":"","channel":"","body":"metadata","origin":""}`,
	} {
		b, err := json.Marshal(controlbus.TapSpec{ID: "t", Body: policy})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(text, string(b)); diff != "" {
			t.Errorf("%v: %s", policy, diff)
		}
		var back controlbus.TapSpec
		if err := json.Unmarshal(b, &back); err != nil || back.Body != policy {
			t.Errorf("read back %s: got %v, %v, want %v", b, back.Body, err, policy)
		}
	}
	var p controlbus.BodyPolicy
	if err := p.UnmarshalText([]byte("all")); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("unknown policy: got %v, want ErrInvalid", err)
	}
}
