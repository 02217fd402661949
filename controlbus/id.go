package controlbus

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// ID is a 128-bit identifier: of one observed message event (its uid), or the
// hash of a correlation or causation id of any length. Sixteen bytes keep the
// store's lookups narrow; the original text stays in the message's headers.
type ID [16]byte

// HashID derives an ID from its parts. Message producers choose most of what
// is hashed, so the hash must resist forged collisions: it is the first half
// of SHA-256 over the parts, each preceded by its length.
func HashID(parts ...string) ID {
	var stack [256]byte
	buf := stack[:0]
	for _, p := range parts {
		n := len(p)
		buf = append(buf, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
		buf = append(buf, p...)
	}
	sum := sha256.Sum256(buf)
	return ID(sum[:16])
}

// CorrelationKey is the key by which all messages of one conversation are
// found: the hash of the correlation id as the broker carried it. An empty
// correlation id has the zero key.
func CorrelationKey(correlationID string) ID {
	if correlationID == "" {
		return ID{}
	}
	return HashID("correlation", correlationID)
}

// IsZero says that there is no identifier.
func (id ID) IsZero() bool { return id == ID{} }

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads 32 hexadecimal digits. Errors are ErrInvalid.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("%w: id %.64q: want 32 hexadecimal digits", ErrInvalid, s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("%w: id %q: want 32 hexadecimal digits", ErrInvalid, s)
	}
	return id, nil
}
