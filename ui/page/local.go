package page

import (
	"net/url"
	"strings"
)

// LocalPath keeps a redirect within the console whatever a form or a link says.
func LocalPath(s string) string {
	p, err := url.Parse(s)
	if err != nil || p.IsAbs() || p.Host != "" || p.Opaque != "" || !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || strings.ContainsAny(s, "\\\r\n\t") {
		return "/"
	}
	return s
}
