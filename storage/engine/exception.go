package engine

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// ClickHouse error codes the engine gives itself or maps to a status.
const (
	codeUnknown         = 1002 // UNKNOWN_EXCEPTION
	codeSyntax          = 62
	codeTimeout         = 159
	codeReadonly        = 164
	codeTooManyQueries  = 202
	codeMemoryLimit     = 241
	codeNotEnoughSpace  = 243
	codeCancelled       = 394
	codeUnsupported     = 48  // NOT_IMPLEMENTED
	codeBadArguments    = 36  // BAD_ARGUMENTS
	codeTooLarge        = 396 // TOO_MANY_ROWS_OR_BYTES
	codeAborted         = 236
	codeBadCompression  = 89 // UNKNOWN_COMPRESSION_METHOD
	codeCannotRead      = 33 // CANNOT_READ_ALL_DATA
	codeQueryIsTooLarge = 307
)

// Exception is an error in ClickHouse's own words, as it goes over the wire.
type Exception struct {
	Code    int
	Message string // without the "Code: N. DB::Exception: " before it
}

func (e *Exception) Error() string {
	return fmt.Sprintf("Code: %d. DB::Exception: %s", e.Code, e.Message)
}

func exceptionf(code int, format string, args ...any) *Exception {
	return &Exception{Code: code, Message: fmt.Sprintf(format, args...)}
}

var exceptionText = regexp.MustCompile(`Code: (\d+)\. DB::[A-Za-z]*Exception: `)

// parseException reads the engine's error text; nil when there is none.
func parseException(text string) error {
	if text == "" {
		return nil
	}
	m := exceptionText.FindStringSubmatchIndex(text)
	if m == nil {
		return &Exception{Code: codeUnknown, Message: strings.TrimSpace(text)}
	}
	code, err := strconv.Atoi(text[m[2]:m[3]])
	if err != nil || code == 0 {
		code = codeUnknown
	}
	e := &Exception{Code: code, Message: strings.TrimSpace(text[m[1]:])}
	if code == codeNotEnoughSpace {
		e.Message = "the disk is full: " + e.Message
	}
	return e
}

// httpStatus follows ClickHouse's own table, as far as callers tell the
// statuses apart: the caller's mistake, a refusal, try again, out of room.
func (e *Exception) httpStatus() int {
	switch e.Code {
	case 6, 26, 27, 33, 36, 38, 41, 42, 43, 47, 53, 57, 62, 69, 70, 72, 73, 117, 119, 130, 131, 386, 456, 457:
		return http.StatusBadRequest
	case 46, 60, 79, 80, 81, 115, 218:
		return http.StatusNotFound
	case codeUnsupported:
		return http.StatusNotImplemented
	case codeReadonly, 497:
		return http.StatusForbidden
	case 307, codeTooLarge:
		return http.StatusRequestEntityTooLarge
	case codeTimeout, 209:
		return http.StatusRequestTimeout
	case codeTooManyQueries, codeAborted:
		return http.StatusServiceUnavailable
	case codeNotEnoughSpace:
		return http.StatusInsufficientStorage
	default:
		return http.StatusInternalServerError
	}
}
