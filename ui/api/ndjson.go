package api

import (
	"bufio"
	"io"

	"github.com/signalbox-dev/signalbox/storage"
)

// ndjson writes a JSON object per line.
type ndjson struct {
	w      *bufio.Writer
	bodies bool
}

func newNDJSON(w io.Writer, bodies bool) *ndjson {
	return &ndjson{bufio.NewWriterSize(w, 64<<10), bodies}
}

func (e *ndjson) write(rows []*storage.MessageDetail) error {
	for _, d := range rows {
		line := MessageDetail{Message: message(&d.Message, false)}
		if e.bodies {
			line.Body = body(d, false)
		}
		if err := e.line(line); err != nil {
			return err
		}
	}
	return e.w.Flush()
}

func (e *ndjson) line(v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	_, err = e.w.Write(b)
	return err
}

func (e *ndjson) close(end End) error {
	if err := e.line(map[string]End{"end": end}); err != nil {
		return err
	}
	return e.w.Flush()
}
