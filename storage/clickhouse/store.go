package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	driver "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/measure"
)

// Store is an open message store. Its methods may be called concurrently.
type Store struct {
	layout
	cfg  Config
	log  *slog.Logger
	conn driver.Conn

	endpoints     []*endpoint
	inserts       sync.Map // table to INSERT statement
	queries       sync.Map // file of query/ to its text for this database
	buffers       sync.Pool
	once          once
	version       string
	reads, writes atomic.Pointer[measure.Seconds] // nil until Measure
	timings       timings
}

// Open connects, brings the schema up to date and returns the store. It waits
// for nothing: a server that is not there is an error that wraps
// controlbus.ErrUnavailable, and the caller decides whether to try again. A
// schema newer than this program is controlbus.ErrUnsupported.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("clickhouse: configuration: %w: %w", controlbus.ErrInvalid, err)
	}
	opts, err := options(cfg)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, log: log,
		layout:  layout{profile: cfg.Profile, database: opts.Auth.Database, cluster: cfg.Cluster},
		buffers: sync.Pool{New: func() any { return new(proto.Buffer) }},
	}
	if !identifier.MatchString(s.database) {
		return nil, fmt.Errorf("clickhouse: %w: database name %q: want letters, digits and underscores", controlbus.ErrInvalid, s.database)
	}
	s.endpoints = endpoints(cfg, opts)
	if err := s.prepare(ctx); err != nil {
		s.closeEndpoints()
		return nil, err
	}
	opts.TransportFunc = func(t *http.Transport) (http.RoundTripper, error) { return summaries{t}, nil }
	opts.Auth.Database = "default" // every table is named with its database
	if s.conn, err = driver.Open(opts); err != nil {
		s.closeEndpoints()
		return nil, fmt.Errorf("clickhouse: open: %w: %w", controlbus.ErrInvalid, err)
	}
	return s, nil
}

// prepare asks for the version and migrates.
func (s *Store) prepare(ctx context.Context) error {
	e := s.endpoints[0]
	text, err := e.exec(ctx, "SELECT version() FORMAT TSV", nil)
	if err != nil {
		return wrap("connect", err)
	}
	s.version = strings.TrimSpace(text)
	list, err := loadMigrations(schemaFiles)
	if err != nil {
		return fmt.Errorf("clickhouse: %w", err)
	}
	switch s.cfg.HeaderIndex {
	case "text":
		s.textIndex = true
	case "auto":
		s.textIndex = s.cfg.DialContext == nil && goodTextIndex(s.version)
	}
	if err := migrate(ctx, e, s.layout, list, s.log); err != nil {
		return err
	}
	// The tables decide how headers are searched, not the configuration: it
	// may have changed since they were made.
	text, err = e.exec(ctx, "SELECT count() FROM system.data_skipping_indices WHERE database = '"+s.database+
		"' AND name = 'tx_headers' FORMAT TSV", nil)
	if err != nil {
		return wrap("look at indexes", err)
	}
	s.textIndex = strings.TrimSpace(text) != "0"
	return nil
}

// goodTextIndex says whether a server's text index can be trusted: it is
// stable from 26.2, and 26.8 stops dropping expired parts of tables that have
// one (ClickHouse#113385).
func goodTextIndex(version string) bool {
	r := release(version)
	return r >= 2602 && r != 2608
}

// release is a server's version as a number that can be compared, such as 2608
// for 26.8.1.1; 0 where it cannot be read.
func release(version string) int {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	if errA != nil || errB != nil {
		return 0
	}
	return a*100 + b
}

// Version is the server's version.
func (s *Store) Version() string { return s.version }

// Database is where the tables live.
func (s *Store) Database() string { return s.database }

// Ping says whether the store answers.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.endpoints[0].exec(ctx, "SELECT 1 FORMAT TSV", nil)
	return wrap("ping", err)
}

// Close gives the connections back. Nothing may be in flight.
func (s *Store) Close() error {
	err := s.conn.Close()
	s.closeEndpoints()
	if err != nil {
		return fmt.Errorf("clickhouse: close: %w", err)
	}
	return nil
}

func (s *Store) closeEndpoints() {
	for _, e := range s.endpoints {
		e.client.CloseIdleConnections()
	}
}

const dialTimeout = 5 * time.Second

// options are the driver's, for the embedded engine or for a DSN.
func options(cfg Config) (*driver.Options, error) {
	if cfg.DSN == "" {
		if cfg.DialContext == nil {
			return nil, fmt.Errorf("clickhouse: %w: neither a DSN nor an embedded engine", controlbus.ErrInvalid)
		}
		return &driver.Options{
			Protocol:     driver.HTTP,
			Addr:         []string{"engine.invalid:80"},
			Auth:         driver.Auth{Database: cfg.Database},
			DialContext:  cfg.DialContext,
			DialTimeout:  dialTimeout,
			MaxOpenConns: 8, MaxIdleConns: 8,
		}, nil
	}
	dsn, err := httpDSN(string(cfg.DSN))
	if err != nil {
		return nil, fmt.Errorf("clickhouse: dsn: %w: %w", controlbus.ErrInvalid, err)
	}
	opts, err := driver.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("clickhouse: dsn: %w: %w", controlbus.ErrInvalid, err)
	}
	if opts.Auth.Database == "" {
		opts.Auth.Database = cfg.Database
	}
	if opts.DialTimeout == 0 {
		opts.DialTimeout = dialTimeout
	}
	return opts, nil
}

// httpDSN rewrites a DSN of the driver so that it means the HTTP interface:
// clickhouse:// becomes http:// (https:// with secure=true), the native
// protocol's ports become those of HTTP.
func httpDSN(dsn string) (string, error) {
	scheme, rest, ok := strings.Cut(dsn, "://")
	if !ok {
		return "", errors.New("want scheme://host")
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority, tail := rest[:end], rest[end:]
	path, query, _ := strings.Cut(tail, "?")
	params, err := url.ParseQuery(query)
	if err != nil {
		return "", errors.New("parameters cannot be read")
	}
	secure, _ := strconv.ParseBool(params.Get("secure"))
	switch scheme {
	case "http":
	case "https":
		secure = true
	case "clickhouse", "tcp":
		scheme = "http"
		if secure {
			scheme = "https"
		}
	default:
		return "", fmt.Errorf("scheme %q: want clickhouse, http or https", scheme)
	}
	if secure && scheme == "https" {
		params.Set("secure", "true")
	}
	user, hosts := "", authority
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, hosts = authority[:at+1], authority[at+1:]
	}
	list := strings.Split(hosts, ",")
	for i, h := range list {
		host, port, err := net.SplitHostPort(h)
		if err != nil {
			host, port = h, ""
		}
		switch port {
		case "", "9000", "9440":
			port = "8123"
			if secure {
				port = "8443"
			}
		}
		list[i] = net.JoinHostPort(strings.Trim(host, "[]"), port)
	}
	out := scheme + "://" + user + strings.Join(list, ",") + path
	if len(params) > 0 {
		out += "?" + params.Encode()
	}
	return out, nil
}

// endpoints are the servers' HTTP interfaces for inserts and DDL.
func endpoints(cfg Config, opts *driver.Options) []*endpoint {
	scheme := "http"
	if opts.TLS != nil {
		scheme = "https"
	}
	header := http.Header{}
	if opts.Auth.Username != "" {
		header.Set("X-ClickHouse-User", opts.Auth.Username)
		header.Set("X-ClickHouse-Key", opts.Auth.Password)
	}
	dial := (&net.Dialer{Timeout: opts.DialTimeout, KeepAlive: 30 * time.Second}).DialContext
	if cfg.DSN == "" {
		dial = func(ctx context.Context, _, addr string) (net.Conn, error) { return cfg.DialContext(ctx, addr) }
	}
	proxy := http.ProxyFromEnvironment
	switch {
	case cfg.DSN == "":
		proxy = nil
	case opts.HTTPProxyURL != nil:
		proxy = http.ProxyURL(opts.HTTPProxyURL)
	}
	list := make([]*endpoint, len(opts.Addr))
	for i, addr := range opts.Addr {
		list[i] = &endpoint{
			base:   url.URL{Scheme: scheme, Host: addr, Path: opts.HttpUrlPath + "/"},
			header: header,
			client: &http.Client{Transport: &http.Transport{
				Proxy:               proxy,
				DialContext:         dial,
				TLSClientConfig:     opts.TLS,
				MaxIdleConnsPerHost: 4,
				IdleConnTimeout:     time.Minute,
			}},
		}
	}
	return list
}
