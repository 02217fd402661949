package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/signalbox-dev/signalbox/storage/state"
	auditpage "github.com/signalbox-dev/signalbox/ui/page/audit"
)

// trailVerifier verifies this console's own audit trail, as signalbox audit
// verify does from outside: with the key beside the state file and the heads
// that were kept.
type trailVerifier struct{ cfg config }

func (t trailVerifier) VerifyAudit(ctx context.Context) (auditpage.Report, error) {
	path := filepath.Join(t.cfg.DataDir, "state.db")
	key, err := state.AuditKey(path)
	if err != nil {
		return auditpage.Report{}, err
	}
	var heads []string
	switch text, err := os.ReadFile(t.cfg.AuditHeads); {
	case err == nil:
		heads = state.SplitHeads(string(text))
	case t.cfg.AuditHeads != "" && !errors.Is(err, fs.ErrNotExist):
		return auditpage.Report{}, fmt.Errorf("heads: %w", err)
	}
	var r state.AuditReport
	if t.cfg.State.DSN != "" {
		r, err = state.VerifyAuditDSN(ctx, t.cfg.State.DSN, key, heads)
	} else {
		r, err = state.VerifyAudit(ctx, path, key, heads)
	}
	if err != nil {
		return auditpage.Report{}, err
	}
	out := auditpage.Report{Entries: r.Entries, Root: r.Root, Heads: r.Heads}
	for _, f := range r.Findings {
		out.Findings = append(out.Findings, f.String())
	}
	return out, nil
}
