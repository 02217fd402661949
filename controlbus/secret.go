package controlbus

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// Secret is a password or token. It prints as *** in every encoding, so a
// configuration can be logged or shown whole; Reveal returns the value for the
// one call that needs it.
type Secret string

const masked = "***"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// GoString keeps %#v from showing the value.
func (s Secret) GoString() string { return `controlbus.Secret("` + s.String() + `")` }

// MarshalText serves JSON, YAML and every other text encoding.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML keeps YAML encoders, which ignore MarshalText on strings, masked.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue serves slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// SecretFromFile reads the secret that a _file key names, without the newline
// that editors leave at the end.
func SecretFromFile(path string) (Secret, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return Secret(strings.TrimRight(string(b), "\r\n")), nil
}
