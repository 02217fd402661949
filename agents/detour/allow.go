package detour

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// allowList is commands.http_allow: where http steps may post to. An entry is a
// URL whose scheme, host and port must be equal and whose path must be a prefix,
// or an address or prefix such as 10.1.0.0/16, which opens private addresses to
// hosts that are allowed by name.
type allowList struct {
	urls []*url.URL
	nets []netip.Prefix
}

// ParseHTTPAllow says what is wrong with a commands.http_allow list. Errors are
// ErrInvalid.
func ParseHTTPAllow(entries []string) error {
	_, err := parseAllow(entries)
	return err
}

func parseAllow(entries []string) (*allowList, error) {
	l := &allowList{}
	var errs []error
	for i, e := range entries {
		if p, err := netip.ParsePrefix(e); err == nil {
			l.nets = append(l.nets, p.Masked())
			continue
		}
		if a, err := netip.ParseAddr(e); err == nil {
			l.nets = append(l.nets, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		u, err := cleanURL(e)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("http_allow[%d]: %w", i, err))
		case u.RawQuery != "":
			errs = append(errs, fmt.Errorf("http_allow[%d]: %w: want a URL without a query", i, controlbus.ErrInvalid))
		default:
			l.urls = append(l.urls, u)
		}
	}
	return l, errors.Join(errs...)
}

// cleanURL reads a URL that means the same to everybody who reads it.
func cleanURL(text string) (*url.URL, error) {
	wrong := func(why string) (*url.URL, error) {
		return nil, fmt.Errorf("%w: URL %.200q: %s", controlbus.ErrInvalid, text, why)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return wrong("it cannot be read")
	case u.Scheme != "http" && u.Scheme != "https":
		return wrong("want http or https")
	case u.Hostname() == "" || u.Opaque != "":
		return wrong("want a host")
	case u.User != nil:
		return wrong("no user and password in it, please")
	case u.Fragment != "":
		return wrong("no # part, please")
	}
	if u.Path == "" {
		u.Path = "/"
	}
	// Encoded slashes and dot segments are read differently by different servers.
	if lower := strings.ToLower(u.EscapedPath()); strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c") || strings.Contains(lower, "%2e") || strings.Contains(u.Path, "\\") {
		return wrong("no encoded slashes or dots in its path, please")
	}
	if clean := path.Clean(u.Path); clean != u.Path && clean+"/" != u.Path {
		return wrong("no . or .. or // in its path, please")
	}
	u.Host = net.JoinHostPort(strings.ToLower(u.Hostname()), port(u))
	return u, nil
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// check returns the URL as it is to be called. Errors are for people.
func (l *allowList) check(text string) (*url.URL, error) {
	u, err := cleanURL(text)
	if err != nil {
		return nil, err
	}
	for _, a := range l.urls {
		if a.Scheme == u.Scheme && a.Host == u.Host && under(u.Path, a.Path) {
			return u, nil
		}
	}
	return nil, fmt.Errorf("%w: the agent's own configuration does not allow to call %s://%s%s; list it under commands.http_allow", controlbus.ErrDenied, u.Scheme, u.Host, clip(u.EscapedPath(), 200))
}

// under says whether a path lies at or below another, whole segments only.
func under(p, prefix string) bool {
	rest, ok := strings.CutPrefix(p, prefix)
	return ok && (rest == "" || strings.HasSuffix(prefix, "/") || rest[0] == '/')
}

// Addresses that give machines their credentials, wherever they are reached from.
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("169.254.170.2"), netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("fd00:ec2::254"),
}

// Prefixes that are not the public Internet and that netip has no word for; the
// last ones carry an IPv4 address within.
var private = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("fec0::/10"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"),
}

// reach says whether a resolved address may be dialled for a host. Loopback and
// private ones only where the list itself names the address, or localhost.
func (l *allowList) reach(host string, a netip.Addr) error {
	a = a.WithZone("").Unmap()
	refused := func(what string) error {
		return fmt.Errorf("%w: %s leads to %s, %s", controlbus.ErrDenied, host, a, what)
	}
	switch {
	case slices.Contains(metadata, a) || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || !a.IsValid():
		return refused("which is never called")
	case !a.IsLoopback() && !a.IsPrivate() && !slices.ContainsFunc(private, func(p netip.Prefix) bool { return p.Contains(a) }):
		return nil
	case slices.ContainsFunc(l.nets, func(p netip.Prefix) bool { return p.Contains(a) }):
		return nil
	}
	for _, u := range l.urls {
		named, err := netip.ParseAddr(u.Hostname())
		if u.Hostname() == host && (err == nil && named.Unmap() == a || host == "localhost" && a.IsLoopback()) {
			return nil
		}
	}
	return refused("a private address; commands.http_allow has to name that address, too")
}

// client posts to one URL's host: every address it resolves to is looked at when
// it is dialled, so that a name that changes its mind gains nothing. No proxy,
// no redirects.
func (l *allowList) client(u *url.URL) *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: address %q", controlbus.ErrDenied, address)
		}
		return l.reach(u.Hostname(), ap.Addr())
	}}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: 5 * time.Second, ForceAttemptHTTP2: true,
			MaxConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
