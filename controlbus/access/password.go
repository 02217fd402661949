package access

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Cost of a password, as OWASP recommends for argon2id. It is stored with each
// hash, so a later version can raise it.
const (
	argonTime    = 2
	argonMemory  = 19 << 10 // KiB
	argonThreads = 1
	argonKey     = 32
	argonSalt    = 16
	// argonMost bounds what a stored hash can make us spend.
	argonMost = 256 << 10

	minPassword = 12  // characters
	maxPassword = 512 // bytes
)

// hashers bounds how many passwords are hashed at once, and with it the memory:
// a flood of sign-ins waits here and is told to come back.
type hashers struct {
	slots chan struct{}
	wait  time.Duration
}

func newHashers(n int) *hashers {
	return &hashers{slots: make(chan struct{}, n), wait: 5 * time.Second}
}

func (h *hashers) do(ctx context.Context, f func()) error {
	ctx, cancel := context.WithTimeout(ctx, h.wait)
	defer cancel()
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
		f()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("access: too many sign-ins at once: %w", controlbus.ErrOverloaded)
	}
}

// hash returns a password's hash in the usual PHC form.
func (h *hashers) hash(ctx context.Context, password string) (phc string, err error) {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails
	err = h.do(ctx, func() {
		key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey)
		phc = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
			base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
	})
	return phc, err
}

// dummy is what a sign-in under an unknown name is checked against: it takes
// the same time and never fits.
const dummy = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// verify compares a password with a stored hash. Without one it works as long
// and says no.
func (h *hashers) verify(ctx context.Context, phc, password string) (fits bool, err error) {
	real := phc != ""
	if !real {
		phc = dummy
	}
	var version, memory, rounds int
	var threads uint8
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, fmt.Errorf("access: stored password: %w: want argon2id", controlbus.ErrUnsupported)
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &version, &memory, &rounds, &threads); err != nil ||
		version != argon2.Version || memory < 8 || memory > argonMost || rounds < 1 || rounds > 20 || threads < 1 {
		return false, fmt.Errorf("access: stored password: %w parameters", controlbus.ErrUnsupported)
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("access: stored password: %w: %w", controlbus.ErrUnsupported, err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || len(want) < 16 || len(want) > 128 {
		return false, fmt.Errorf("access: stored password: %w length", controlbus.ErrUnsupported)
	}
	if len(password) > maxPassword {
		password = password[:maxPassword] // never fits: nobody could set it
		real = false
	}
	err = h.do(ctx, func() {
		got := argon2.IDKey([]byte(password), salt, uint32(rounds), uint32(memory), threads, uint32(len(want)))
		fits = subtle.ConstantTimeCompare(got, want) == 1 && real
	})
	return fits, err
}

// CheckPassword says what is wrong with a new password. Length counts, not a
// mix of kinds of characters. Errors are controlbus.ErrInvalid.
func CheckPassword(name, password string) error {
	switch {
	case !utf8.ValidString(password):
		return fmt.Errorf("%w: password: want UTF-8 text", controlbus.ErrInvalid)
	case utf8.RuneCountInString(password) < minPassword:
		return fmt.Errorf("%w: password: want at least %d characters; a few words in a row are easy to remember", controlbus.ErrInvalid, minPassword)
	case len(password) > maxPassword:
		return fmt.Errorf("%w: password: want at most %d bytes", controlbus.ErrInvalid, maxPassword)
	case name != "" && strings.Contains(strings.ToLower(password), strings.ToLower(name)) && len(name) >= minPassword/2:
		return fmt.Errorf("%w: password: it holds the name", controlbus.ErrInvalid)
	case strings.Count(password, password[:1]) == len(password):
		return fmt.Errorf("%w: password: it is one character repeated", controlbus.ErrInvalid)
	}
	return nil
}
