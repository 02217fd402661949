package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/signalbox-dev/signalbox/ui/component"
)

var exportCommand = command{name: "export", summary: "write what a search finds into a file", run: func(ctx context.Context, args []string) error { return newTerminal().export(ctx, args) }}

func (t *terminal) export(ctx context.Context, args []string) error {
	flags := t.verb("export", "['FILTER'] --file FILE [flags]", `
Writes what a search finds as NDJSON, CSV or Parquet, as it is found. The last record of the file says whether it is complete; so does the exit
code: 0 when it is, or when it stopped at the --limit you gave, and 1 when something is missing. A file that broke off on its way is left as FILE.part.`)
	at := consoleFlag(flags)
	env := flags.String("env", "", "`environment`; all of them without it")
	within := addRange(flags, "1h")
	order := flags.String("order", "newest", "newest or oldest first")
	limit := flags.Int("limit", 100_000, "messages at most")
	cursor := flags.String("cursor", "", "go on where an earlier export with the same flags stopped")
	bodies := flags.Bool("bodies", false, "with the stored bodies")
	file := flags.String("file", "", "`file` to write; - is standard output")
	out := t.output(flags, "ndjson", "csv", "parquet", "json")
	rest, err := flags.parse(args)
	if err != nil {
		return err
	}
	format := out.value
	switch ext := strings.TrimPrefix(filepath.Ext(*file), "."); {
	case format == "json": // one object per line is the JSON that can be written as it is found
		format = "ndjson"
	case !flags.given("o") && (ext == "csv" || ext == "parquet"):
		format = ext
	}
	switch {
	case *file == "":
		return fmt.Errorf("%w: want --file; - is standard output", errUsage)
	case *file == "-" && t.tty && format == "parquet":
		return fmt.Errorf("%w: Parquet is no text: want a --file", errUsage)
	}
	q := url.Values{}
	set(q, "q", strings.Join(rest, " "), "env", *env, "order", *order, "cursor", *cursor, "format", format, "limit", fmt.Sprint(*limit))
	if *bodies {
		q.Set("bodies", "true")
	}
	if err := within.fill(q); err != nil {
		return err
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	r, err := c.request(ctx, "GET", "/messages/export", q, nil)
	if err != nil {
		return err
	}
	res, err := c.do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()

	size, err := t.save(*file, res.Body, func() error {
		if res.Trailer.Get("Signalbox-Export-Complete") == "" {
			return errors.New("its end is missing")
		}
		return nil
	})
	if err != nil {
		return err
	}
	complete, found, stopped, next := res.Trailer.Get("Signalbox-Export-Complete"), res.Trailer.Get("Signalbox-Export-Messages"), res.Trailer.Get("Signalbox-Export-Stopped"), res.Trailer.Get("Signalbox-Export-Next")
	says := fmt.Sprintf("%s messages, %s", component.Visible(found), component.Size(size))
	if complete == "true" {
		t.note("Complete: %s.", says)
		return nil
	}
	says += ", stopped by " + component.Visible(stopped) + "; go on with --cursor " + component.Visible(next)
	if stopped == "limit" && flags.given("limit") {
		t.note("As far as --limit: %s.", says)
		return nil
	}
	return fmt.Errorf("not complete: %s", says)
}

// save writes beside the file first: one that broke off does not take its place.
func (t *terminal) save(file string, from io.Reader, ended func() error) (size int64, err error) {
	if file == "-" {
		to := t.out
		if t.tty {
			to = harmless{t}
		}
		if size, err = io.Copy(to, from); err == nil {
			err = ended()
		}
		if err != nil {
			err = fmt.Errorf("the export broke off after %s: %w", component.Size(size), err)
		}
		return size, err
	}
	f, err := os.OpenFile(file+".part", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	if size, err = io.Copy(f, from); err == nil {
		err = ended()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return size, fmt.Errorf("the export broke off after %s, left in %s.part: %w", component.Size(size), file, err)
	}
	return size, os.Rename(file+".part", file)
}

// harmless shows text on a terminal.
type harmless struct{ t *terminal }

func (h harmless) Write(b []byte) (int, error) {
	h.t.text(string(b))
	return len(b), nil
}
