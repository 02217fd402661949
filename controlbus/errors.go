package controlbus

import "errors"

// Sentinels that cross package borders. Wrap them with what was attempted and
// ask with errors.Is; ui and collector/otlp turn them into statuses.
var (
	// ErrNotFound: the thing named does not exist (any more).
	ErrNotFound = errors.New("not found")
	// ErrConflict: it exists already, or changed since it was looked at.
	ErrConflict = errors.New("conflict")
	// ErrInvalid: the input can never be accepted as it is.
	ErrInvalid = errors.New("invalid")
	// ErrTooLarge: the input is well formed but over a stated limit.
	ErrTooLarge = errors.New("too large")
	// ErrUnsupported: this broker, version or adapter cannot do it.
	ErrUnsupported = errors.New("not supported")
	// ErrUnavailable: not now; the same call may succeed later.
	ErrUnavailable = errors.New("unavailable")
	// ErrOverloaded: refused by admission control; retry after a delay.
	ErrOverloaded = errors.New("overloaded")
	// ErrDenied: the caller may not.
	ErrDenied = errors.New("denied")
)
