package problem

import (
	"context"
	"errors"
	"net/http"
	"regexp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// Answer is what an error means to whoever asked, on a page and in the API.
type Answer struct {
	Kind   string // short name, part of the API: "not-found"
	Status int    // of HTTP
	Title  string
	Next   string // what is to be expected, or to be done

	is error
}

// answers is the one table from sentinels to answers; the first that fits is
// taken.
var answers = []Answer{
	{is: controlbus.ErrNotFound, Kind: "not-found", Status: http.StatusNotFound, Title: "This is not here", Next: "It may have been removed by retention, or the address is not complete."},
	{is: controlbus.ErrTooLarge, Kind: "too-large", Status: http.StatusRequestEntityTooLarge, Title: "That is too large", Next: "Nothing was changed."},
	{is: controlbus.ErrInvalid, Kind: "invalid", Status: http.StatusBadRequest, Title: "The address or form cannot be read", Next: "Nothing was changed. Correct what is named below and try again."},
	{is: access.ErrUnauthenticated, Kind: "unauthenticated", Status: http.StatusUnauthorized, Title: "Sign in first", Next: "Nothing was changed. A program shows an API token, as Authorization: Bearer."},
	{is: controlbus.ErrDenied, Kind: "denied", Status: http.StatusForbidden, Title: "Not allowed", Next: "Nothing was changed."},
	{is: controlbus.ErrConflict, Kind: "conflict", Status: http.StatusConflict, Title: "It changed meanwhile", Next: "Nothing was changed. Look again, then decide."},
	{is: controlbus.ErrUnsupported, Kind: "unsupported", Status: http.StatusUnprocessableEntity, Title: "This broker cannot do that", Next: "Nothing was changed."},
	{is: controlbus.ErrOverloaded, Kind: "overloaded", Status: http.StatusTooManyRequests, Title: "Too many at once", Next: "Nothing was changed. Try again in a moment."},
	{is: controlbus.ErrUnavailable, Kind: "unavailable", Status: http.StatusServiceUnavailable, Title: "It does not answer now", Next: "Nothing was changed. The same may work in a moment."},
	{is: context.DeadlineExceeded, Kind: "timeout", Status: http.StatusGatewayTimeout, Title: "It took too long", Next: "Nothing was changed. A shorter time range takes less."},
}

var unknown = Answer{Kind: "internal", Status: http.StatusInternalServerError, Title: "Something broke in the console", Next: "Nothing was changed as far as is known. The log has the cause under the reference below."}

// Of finds the answer to an error. Errors that are not known may hold what only
// the log should: their text is not for readers.
func Of(err error) (a Answer, known bool) {
	for _, a := range answers {
		if errors.Is(err, a.is) {
			return a, true
		}
	}
	return unknown, false
}

// parts are names of packages and of entries in the audit trail, with which
// errors of the control bus begin. The log has them; a reader has no use for
// them.
var parts = regexp.MustCompile(`(^|: )(?:(?:ledger|command|link|probe|command\.[a-z_]+): )+(?:denied: )?`)

// Text is an error as a reader is told it.
func Text(err error) string { return parts.ReplaceAllString(err.Error(), "$1") }
