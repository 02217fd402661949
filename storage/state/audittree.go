package state

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// The audit trail is a hash chain, whose records are the leaves of the tree of
// RFC 6962 as sumdb/tlog keeps it:
//
//	record n = JSON of (chain n-1, number, what the row says)
//	chain n  = SHA-256(record n)          leaf n = SHA-256(0x00 ‖ record n)
//	head     = size and root of the tree, as a checkpoint signed with Ed25519
//
// Who edits, removes or reorders rows must compute everything behind them anew,
// and cannot sign. Who cuts off the end, together with an older head, is found
// by any head kept elsewhere: the console writes them out, see AuditHead.

// AuditOrigin begins every head, so that it is taken for nothing else.
const AuditOrigin = "signalbox/audit"

const auditKeyName = "signalbox-audit"

// auditRecord is what is hashed. Its fields and their order never change.
type auditRecord struct {
	Prev    string `json:"prev"`
	Seq     int64  `json:"seq"`
	At      int64  `json:"at"`
	Kind    string `json:"actor_kind"`
	ID      string `json:"actor_id"`
	Name    string `json:"actor_name"`
	Code    string `json:"code"`
	Target  string `json:"target"`
	Env     string `json:"env"`
	Channel string `json:"channel"`
	Refused bool   `json:"refused"`
	Detail  string `json:"detail"`
	Address string `json:"address"`
}

const auditColumns = `seq, at, actor_kind, actor_id, actor_name, code, target, env, channel, refused, detail, address`

func scanAuditRecord(row scanner) (r auditRecord, err error) {
	err = row.Scan(&r.Seq, &r.At, &r.Kind, &r.ID, &r.Name, &r.Code, &r.Target, &r.Env, &r.Channel, &r.Refused, &r.Detail, &r.Address)
	return r, err
}

func (r auditRecord) bytes(prev []byte) ([]byte, error) {
	r.Prev = hex.EncodeToString(prev)
	return json.Marshal(r)
}

// addEvent appends to the audit trail and its tree.
func addEvent(ctx context.Context, q querier, e access.Event) error {
	// As it is in the table, so that what is hashed is what is read back.
	r, err := scanAuditRecord(q.QueryRowContext(ctx, `INSERT INTO audit (at, actor_kind, actor_id, actor_name, code, target, env, channel, refused, detail, address)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING `+auditColumns,
		nanos(e.At), string(e.Actor.Kind), e.Actor.ID, e.Actor.Name, e.Code, e.Target, e.Env, e.Channel, e.Refused, e.Detail, e.Address))
	if err != nil {
		return err
	}
	return addLeaf(ctx, q, r)
}

// addLeaf puts a row of the audit table into the tree.
func addLeaf(ctx context.Context, q querier, r auditRecord) error {
	var n int64
	var prev []byte
	err := q.QueryRowContext(ctx, `SELECT n + 1, chain FROM audit_leaves ORDER BY n DESC LIMIT 1`).Scan(&n, &prev)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	record, err := r.bytes(prev)
	if err != nil {
		return err
	}
	chain := sha256.Sum256(record)
	hashes, err := tlog.StoredHashes(n, record, storedHashes(ctx, q))
	if err != nil {
		return err
	}
	if _, err := q.ExecContext(ctx, `INSERT INTO audit_leaves (n, seq, chain) VALUES (?, ?, ?)`, n, r.Seq, chain[:]); err != nil {
		return err
	}
	for i, h := range hashes {
		if _, err := q.ExecContext(ctx, `INSERT INTO audit_hashes (i, hash) VALUES (?, ?)`, tlog.StoredHashCount(n)+int64(i), h[:]); err != nil {
			return err
		}
	}
	return nil
}

func storedHashes(ctx context.Context, q querier) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		if len(indexes) == 0 {
			return nil, nil
		}
		args := make([]any, len(indexes))
		for i, at := range indexes {
			args[i] = at
		}
		// In one go: each question is a way to the server and back.
		rows, err := q.QueryContext(ctx, `SELECT i, hash FROM audit_hashes WHERE i IN (?`+strings.Repeat(", ?", len(args)-1)+`)`, args...)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		found := make(map[int64]tlog.Hash, len(indexes))
		for rows.Next() {
			var i int64
			var hash []byte
			if err := rows.Scan(&i, &hash); err != nil {
				return nil, err
			}
			if len(hash) != len(tlog.Hash{}) {
				return nil, fmt.Errorf("audit hash %d has %d bytes", i, len(hash))
			}
			found[i] = tlog.Hash(hash)
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
		out := make([]tlog.Hash, len(indexes))
		for i, at := range indexes {
			h, ok := found[at]
			if !ok {
				return nil, fmt.Errorf("audit hash %d: %w", at, controlbus.ErrNotFound)
			}
			out[i] = h
		}
		return out, nil
	})
}

// signHead signs the tree where it has grown. It is the last thing a
// transaction does.
func (s *Store) signHead(ctx context.Context, q querier) error {
	var size, signed int64
	var head string
	if err := q.QueryRowContext(ctx, `SELECT coalesce((SELECT max(n) + 1 FROM audit_leaves), 0), coalesce((SELECT size FROM audit_head), 0),
		coalesce((SELECT note FROM audit_head), '')`).Scan(&size, &signed, &head); err != nil {
		return err
	}
	if size == signed {
		return nil
	}
	if err := s.sameKey(head); err != nil {
		return err
	}
	root, err := tlog.TreeHash(size, storedHashes(ctx, q))
	if err != nil {
		return err
	}
	text, err := note.Sign(&note.Note{Text: headText(size, root)}, s.signer)
	if err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, `INSERT INTO audit_head (one, size, note) VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET size = excluded.size, note = excluded.note`, size, string(text))
	return err
}

func headText(size int64, root tlog.Hash) string {
	return AuditOrigin + "\n" + strconv.FormatInt(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n"
}

func parseHead(text string) (size int64, root tlog.Hash, err error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) != 4 || lines[0] != AuditOrigin || lines[3] != "" {
		return 0, root, fmt.Errorf("%w: head: want the origin %s, a size and a root", controlbus.ErrInvalid, AuditOrigin)
	}
	size, err = strconv.ParseInt(lines[1], 10, 64)
	b, e := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || e != nil || size < 0 || len(b) != len(root) {
		return 0, root, fmt.Errorf("%w: head: want a size and a root of 32 bytes", controlbus.ErrInvalid)
	}
	return size, tlog.Hash(b), nil
}

// AuditHead is the newest signed head of the audit trail's tree, empty where
// there is none. Kept where this file's owner cannot change it, it proves later
// that nothing up to its size was changed or cut off.
func (s *Store) AuditHead(ctx context.Context) (head string, size int64, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT note, size FROM audit_head`).Scan(&head, &size)
	if errors.Is(err, sql.ErrNoRows) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("state: audit head: %w", known(err))
	}
	return head, size, nil
}

// sealOldAudit builds the tree over a trail that is older than it.
func (s *Store) sealOldAudit(ctx context.Context) error {
	return s.inTx(ctx, "audit tree", func(tx querier) error {
		var leaves, rows int64
		if err := tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM audit_leaves), (SELECT count(*) FROM audit)`).Scan(&leaves, &rows); err != nil {
			return err
		}
		if leaves > 0 || rows == 0 {
			return nil
		}
		var old []auditRecord
		all, err := tx.QueryContext(ctx, `SELECT `+auditColumns+` FROM audit ORDER BY seq`)
		if err != nil {
			return err
		}
		defer all.Close()
		for all.Next() {
			r, err := scanAuditRecord(all)
			if err != nil {
				return err
			}
			old = append(old, r)
		}
		if err := all.Err(); err != nil {
			return err
		}
		for _, r := range old {
			if err := addLeaf(ctx, tx, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// sameKey refuses to go on, where several consoles write one trail, from a head
// that another key has signed: the trail would not verify with either.
func (s *Store) sameKey(head string) error {
	if !s.shared || head == "" {
		return nil
	}
	if _, err := note.Open([]byte(head), note.VerifierList(s.verifier)); err != nil {
		return fmt.Errorf("%w: the audit trail in this database is signed with another key than %s: copy %s from the data directory of a console that uses the database; where that is lost, DELETE FROM audit_head in the database begins with this one",
			controlbus.ErrConflict, s.keyFile, KeyFile)
	}
	return nil
}

// openKey reads the signing key, or makes one where the trail has none yet.
func (s *Store) openKey(ctx context.Context, path string) error {
	var head string
	err := s.db.QueryRowContext(ctx, `SELECT note FROM audit_head`).Scan(&head)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && s.shared && head != "" {
		return fmt.Errorf("%w: the audit trail in this database is signed already, and %s is not here: copy it from the data directory of a console that uses the database; where it is lost, DELETE FROM audit_head in the database begins with a new one",
			controlbus.ErrConflict, path)
	}
	if s.signer, err = auditKey(path); err != nil {
		return err
	}
	public, err := readKey(path)
	if err != nil {
		return err
	}
	if s.verifier, err = note.NewVerifier(public); err != nil {
		return err
	}
	s.keyFile = path
	if s.shared && head == "" {
		if head, err = s.claim(ctx); err != nil {
			return err
		}
	}
	return s.sameKey(head)
}

// claim signs the empty tree, so that of consoles with different keys that start
// on an empty database the first one is the one whose key holds.
func (s *Store) claim(ctx context.Context) (head string, err error) {
	text, err := note.Sign(&note.Note{Text: headText(0, tlog.Hash{})}, s.signer)
	if err != nil {
		return "", err
	}
	err = s.transact(ctx, func(tx querier) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO audit_head (one, size, note) VALUES (1, 0, ?) ON CONFLICT (one) DO NOTHING`, string(text)); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT note FROM audit_head`).Scan(&head)
	})
	return head, err
}

// auditKey reads the signing key, or makes one.
func auditKey(path string) (note.Signer, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		private, _, err := note.GenerateKey(rand.Reader, auditKeyName)
		if err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		_, err = f.WriteString(private + "\n")
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return nil, err
		}
		return note.NewSigner(private)
	}
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not a signing key: restore it, or move it away to begin with a new one", controlbus.ErrInvalid, path)
	}
	return signer, nil
}

// AuditKey is the public half of the key that signs heads, made from the key
// file beside the database.
func AuditKey(dbPath string) (string, error) { return readKey(keyPath(dbPath)) }

func readKey(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("state: audit key: %w", err)
	}
	return verifierKey(strings.TrimSpace(string(b)))
}
