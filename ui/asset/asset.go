// Package asset holds the console's style sheets, ES modules and icons. They
// are bundled by esbuild (npm run build) into dist/ under content-hashed names
// and embedded from there. dist/ is never committed: a program compiled before
// the first build starts, and says on every page that it has no assets.
package asset

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed all:dist
var embedded embed.FS

// Prefix is the path under which Handler expects to be mounted.
const Prefix = "/assets/"

// Set is one build of the front end, held in memory with its compressed twin.
type Set struct {
	names map[string]string // logical name to hashed name
	files map[string]file   // by hashed name
}

type file struct {
	contentType string
	raw, gzip   []byte
}

// Embedded returns the build compiled into the program.
func Embedded() (*Set, error) {
	sub, err := fs.Sub(embedded, "dist")
	if err != nil {
		return nil, fmt.Errorf("asset: embedded dist: %w", err)
	}
	return Load(sub)
}

// Load reads a build from a directory that holds a manifest. A directory
// without one is a Set that is not Built.
func Load(dir fs.FS) (*Set, error) {
	s := &Set{files: map[string]file{}}
	b, err := fs.ReadFile(dir, "manifest.json")
	if err != nil {
		return s, nil //nolint:nilerr // not built yet is a state, not a failure
	}
	if err := json.Unmarshal(b, &s.names); err != nil {
		return nil, fmt.Errorf("asset: manifest.json: %w", err)
	}
	for _, name := range s.names {
		raw, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, fmt.Errorf("asset: %w", err)
		}
		var z bytes.Buffer
		w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression) // the level is valid
		if _, err := w.Write(raw); err != nil {
			return nil, fmt.Errorf("asset: compress %s: %w", name, err)
		}
		if err := w.Close(); err != nil {
			return nil, fmt.Errorf("asset: compress %s: %w", name, err)
		}
		s.files[name] = file{contentType: contentType(name), raw: raw, gzip: z.Bytes()}
	}
	return s, nil
}

// contentType does not trust the host's MIME tables for the types we ship.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return mime.TypeByExtension(path.Ext(name))
}

// Built says whether the front end has been built.
func (s *Set) Built() bool { return len(s.files) > 0 }

// URL returns the address of a logical name such as "app.js", empty where the
// build has none.
func (s *Set) URL(name string) string {
	if n, ok := s.names[name]; ok {
		return Prefix + n
	}
	return ""
}

// ServeHTTP serves the files. Their names change with their content, so
// browsers may keep them for ever.
func (s *Set) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := s.files[strings.TrimPrefix(r.URL.Path, Prefix)]
	if !ok {
		http.Error(w, "no such asset", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
	body := f.raw
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.gzip
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a reader that went away is not an error of ours
	}
}
