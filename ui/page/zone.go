package page

import (
	"fmt"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// BrowserZone is the choice to take the zone that the browser has.
const BrowserZone = "browser"

var zoneName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$`)

// zones keeps what was loaded: there are some six hundred, and reading one
// costs a file.
var zones sync.Map // name to *time.Location

// LoadZone finds a time zone by its name. Errors are ErrInvalid.
func LoadZone(name string) (*time.Location, error) {
	if loc, ok := zones.Load(name); ok {
		return loc.(*time.Location), nil
	}
	if len(name) > 64 || !zoneName.MatchString(name) || name == "Local" {
		return nil, fmt.Errorf("%w: time zone %.64q: want a name such as Europe/Berlin or UTC", controlbus.ErrInvalid, name)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%w: time zone %q is not known: want a name such as Europe/Berlin or UTC", controlbus.ErrInvalid, name)
	}
	zones.Store(name, loc)
	return loc, nil
}

// readZone is the zone to write times in, and the one that was chosen: empty
// where the browser's own is taken. That one is known once script told it.
func readZone(r *http.Request) (loc *time.Location, chosen string) {
	cookie := func(name string) string {
		c, err := r.Cookie(name)
		if err != nil {
			return ""
		}
		return c.Value
	}
	if name := cookie(CookieZone); name != "" && name != BrowserZone {
		if loc, err := LoadZone(name); err == nil {
			return loc, name
		}
	}
	if loc, err := LoadZone(cookie(CookieBrowserZone)); err == nil {
		return loc, ""
	}
	return time.UTC, ""
}
