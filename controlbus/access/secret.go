package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/big"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Prefixes say what a token is for, to people and to scanners that look for
// leaked secrets: all match sbx[ea]?_[0-9A-Za-z]{49}.
const (
	prefixToken = "sbx_"  // an API token
	prefixEnrol = "sbxe_" // good for enrolling an agent
	prefixAgent = "sbxa_" // an agent's credential
)

const (
	secretBytes = 32
	digits      = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	secretChars = 43 // 32 bytes in base 62
	checkChars  = 6  // CRC-32 in base 62
)

// hash is SHA-256 of a secret with 256 random bits, which needs no slow hash:
// there is nothing to guess.
type hash [sha256.Size]byte

func hashOf(secret string) hash { return sha256.Sum256([]byte(secret)) }

// newSecret makes a token: prefix, 32 random bytes, and a checksum that tells a
// mistyped token from a revoked one without asking the store.
func newSecret(prefix string) controlbus.Secret {
	var b [secretBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	body := prefix + base62(b[:], secretChars)
	return controlbus.Secret(body + checksum(body))
}

func checksum(body string) string {
	sum := crc32.ChecksumIEEE([]byte(body))
	return base62([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}, checkChars)
}

func base62(b []byte, width int) string {
	out := make([]byte, width)
	n, mod, base := new(big.Int).SetBytes(b), new(big.Int), big.NewInt(int64(len(digits)))
	for i := width - 1; i >= 0; i-- {
		n.DivMod(n, base, mod)
		out[i] = digits[mod.Int64()]
	}
	return string(out)
}

// checkSecret says whether a text can be one of our tokens at all, and which
// prefix it has.
func checkSecret(s string) (prefix string, ok bool) {
	for _, p := range []string{prefixToken, prefixEnrol, prefixAgent} {
		if strings.HasPrefix(s, p) && len(s) == len(p)+secretChars+checkChars {
			at := len(s) - checkChars
			return p, checksum(s[:at]) == s[at:]
		}
	}
	return "", false
}

// newID names a row: short, unguessable enough not to be enumerated, no secret.
func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Hint is the part of a token by which its owner recognises it.
func hint(s controlbus.Secret) string {
	text := s.Reveal()
	return fmt.Sprintf("%s…%s", text[:strings.IndexByte(text, '_')+5], text[len(text)-4:])
}
