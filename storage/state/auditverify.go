package state

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// KeyFile is the name of the file with the signing key.
const KeyFile = "audit.key"

func keyPath(dbPath string) string { return filepath.Join(filepath.Dir(dbPath), KeyFile) }

// verifierKey is the public half of a note's private key, whose form is
// PRIVATE+KEY+name+hash+base64(algorithm, seed).
func verifierKey(private string) (string, error) {
	signer, err := note.NewSigner(private)
	if err != nil {
		return "", fmt.Errorf("state: audit key: %w: not a signing key", controlbus.ErrInvalid)
	}
	parts := strings.SplitN(private, "+", 5)
	seed, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(seed) != 1+ed25519.SeedSize {
		return "", fmt.Errorf("state: audit key: %w: not an Ed25519 key", controlbus.ErrInvalid)
	}
	public := ed25519.NewKeyFromSeed(seed[1:]).Public().(ed25519.PublicKey)
	return note.NewEd25519VerifierKey(signer.Name(), public)
}

// AuditFinding is one thing that is not as it was written.
type AuditFinding struct {
	Seq  int64 // of the entry, 0 where none can be named
	What string
}

func (f AuditFinding) String() string {
	if f.Seq == 0 {
		return f.What
	}
	return fmt.Sprintf("entry %d: %s", f.Seq, f.What)
}

// AuditReport is what VerifyAudit found. Without findings the trail is whole.
type AuditReport struct {
	Entries  int64
	Root     string // of the tree, base64
	Heads    int    // kept elsewhere, that were checked
	Findings []AuditFinding
}

// maxFindings keeps a report readable: one edit breaks all that follows.
const maxFindings = 50

func (r *AuditReport) found(seq int64, format string, args ...any) {
	if len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, AuditFinding{seq, fmt.Sprintf(format, args...)})
	}
}

// VerifyAudit computes the audit trail of a database anew and compares it with
// its tree, its signed head, and the heads that were kept elsewhere. key is the
// public key the heads must be signed with. It changes nothing and may run
// beside the console.
func VerifyAudit(ctx context.Context, dbPath, key string, heads []string) (AuditReport, error) {
	db, err := sql.Open("sqlite", "file:"+escape(dbPath)+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		return AuditReport{}, fmt.Errorf("state: verify audit: %w", err)
	}
	defer func() { _ = db.Close() }() // it was only read
	return verifyAudit(ctx, db, &sql.TxOptions{ReadOnly: true}, key, heads)
}

// VerifyAuditDSN is VerifyAudit for the trail in a PostgreSQL database.
func VerifyAuditDSN(ctx context.Context, dsn controlbus.Secret, key string, heads []string) (AuditReport, error) {
	cfg, err := postgresConfig(dsn)
	if err != nil {
		return AuditReport{}, fmt.Errorf("state: verify audit: %w", err)
	}
	cfg.ValidateConnect = nil // a standby will do
	db := stdlib.OpenDB(*cfg)
	defer func() { _ = db.Close() }() // it was only read
	return verifyAudit(ctx, db, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}, key, heads)
}

func verifyAudit(ctx context.Context, db *sql.DB, moment *sql.TxOptions, key string, heads []string) (AuditReport, error) {
	var r AuditReport
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return r, fmt.Errorf("state: verify audit: %w: key: %w", controlbus.ErrInvalid, err)
	}
	tx, err := db.BeginTx(ctx, moment)
	if err != nil {
		return r, fmt.Errorf("state: verify audit: %w", known(err))
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	v := verification{ctx: ctx, tx: tx, verifier: verifier, report: &r}
	if err := errors.Join(v.rows(), v.head(), v.kept(heads)); err != nil {
		return r, fmt.Errorf("state: verify audit: %w", known(err))
	}
	return r, nil
}

type verification struct {
	ctx      context.Context
	tx       *sql.Tx
	verifier note.Verifier
	report   *AuditReport
	hashes   []tlog.Hash // of the tree over the rows as they are now
	n        int64
}

func (v *verification) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, at := range indexes {
		out[i] = v.hashes[at]
	}
	return out, nil
}

// rows walks entries and leaves side by side.
func (v *verification) rows() error {
	rows, err := v.tx.QueryContext(v.ctx, `SELECT l.n, l.seq, l.chain, a.seq IS NOT NULL,
			coalesce(a.seq, 0), coalesce(a.at, 0), coalesce(a.actor_kind, ''), coalesce(a.actor_id, ''), coalesce(a.actor_name, ''), coalesce(a.code, ''),
			coalesce(a.target, ''), coalesce(a.env, ''), coalesce(a.channel, ''), coalesce(a.refused, 0), coalesce(a.detail, ''), coalesce(a.address, '')
		FROM audit_leaves l LEFT JOIN audit a ON a.seq = l.seq ORDER BY l.n`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var prev []byte
	var last int64
	for rows.Next() {
		var (
			n, seq int64
			chain  []byte
			there  bool
			r      auditRecord
		)
		if err := rows.Scan(&n, &seq, &chain, &there, &r.Seq, &r.At, &r.Kind, &r.ID, &r.Name, &r.Code, &r.Target, &r.Env, &r.Channel, &r.Refused, &r.Detail, &r.Address); err != nil {
			return err
		}
		if n != v.n {
			v.report.found(seq, "the leaf before it is gone")
		}
		if seq <= last {
			v.report.found(seq, "it stands behind entry %d: the order was changed", last)
		}
		last = seq
		record, err := r.bytes(prev)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(record)
		switch {
		case !there:
			v.report.found(seq, "it was removed")
		case !bytes.Equal(sum[:], chain):
			v.report.found(seq, "it is not what was written, or not in its place")
		}
		// Computed from what is here: a forged chain value cannot help.
		hashes, err := tlog.StoredHashes(v.n, record, v)
		if err != nil {
			return err
		}
		v.hashes = append(v.hashes, hashes...)
		v.n++
		prev = chain
	}
	if err := rows.Err(); err != nil {
		return err
	}
	v.report.Entries = v.n
	loose, err := v.tx.QueryContext(v.ctx, `SELECT seq FROM audit WHERE seq NOT IN (SELECT seq FROM audit_leaves) ORDER BY seq LIMIT 50`)
	if err != nil {
		return err
	}
	defer loose.Close()
	for loose.Next() {
		var seq int64
		if err := loose.Scan(&seq); err != nil {
			return err
		}
		v.report.found(seq, "it was put in beside the console: the tree does not have it")
	}
	return loose.Err()
}

// root of the tree when it had so many entries.
func (v *verification) root(size int64) (tlog.Hash, error) {
	if size == 0 {
		return tlog.Hash{}, nil
	}
	return tlog.TreeHash(size, v)
}

// head compares the database's own head.
func (v *verification) head() error {
	root, err := v.root(v.n)
	if err != nil {
		return err
	}
	v.report.Root = root.String()
	var text string
	err = v.tx.QueryRowContext(v.ctx, `SELECT note FROM audit_head`).Scan(&text)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		if v.n > 0 {
			v.report.found(0, "the signed head is gone")
		}
		return nil
	case err != nil:
		return err
	}
	size, err := v.compare(text, "the signed head")
	if err == nil && size >= 0 && size < v.n {
		v.report.found(0, "%d entries stand behind the signed head: they were put in beside the console", v.n-size)
	}
	return err
}

// kept compares heads that were kept elsewhere.
func (v *verification) kept(heads []string) error {
	for _, h := range heads {
		if _, err := v.compare(h, "a head kept elsewhere"); err != nil {
			return err
		}
		v.report.Heads++
	}
	return nil
}

// compare checks a head's signature and root; size is -1 where it has none.
func (v *verification) compare(text, what string) (size int64, err error) {
	n, err := note.Open([]byte(text), note.VerifierList(v.verifier))
	if err != nil {
		v.report.found(0, "%s is not signed with the key: %v", what, err)
		return -1, nil
	}
	size, want, err := parseHead(n.Text)
	if err != nil {
		v.report.found(0, "%s cannot be read: %v", what, err)
		return -1, nil
	}
	if size > v.n {
		v.report.found(0, "%s has %d entries, here are %d: the end was cut off", what, size, v.n)
		return size, nil
	}
	root, err := v.root(size)
	if err == nil && root != want {
		v.report.found(0, "%s has another root for the first %d entries: one of them was changed", what, size)
	}
	return size, err
}

// SplitHeads reads heads as the console writes them one after the other.
func SplitHeads(text string) []string {
	var heads []string
	for _, part := range strings.Split(text, AuditOrigin+"\n") {
		if strings.TrimSpace(part) != "" {
			heads = append(heads, AuditOrigin+"\n"+strings.TrimRight(part, "\n")+"\n")
		}
	}
	return heads
}
