package problem

import (
	"errors"
	"testing"
)

func TestText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"ledger: command.approve: denied: who requested a command cannot decide on it":              "who requested a command cannot decide on it",
		"order: ledger: command.request: denied: it needs the right operate":                        "order: it needs the right operate",
		"command: purge: denied: it needs the right command.destroy on rabbit/orders in production": "purge: denied: it needs the right command.destroy on rabbit/orders in production",
		"command 019a: not found":                 "command 019a: not found",
		"channel command.x: not found":            "channel command.x: not found",
		"the probe: probe \"x\": not found":       "the probe: probe \"x\": not found",
		`link: agent "a": unavailable: is silent`: `agent "a": unavailable: is silent`,
	} {
		if got := Text(errors.New(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
