package detour

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// maxInflated bounds what a compressed body may become when it is validated.
const maxInflated = 16 << 20

// compileSchema takes a JSON Schema, of draft 2020-12 where it names none. What
// it refers to must be within it: nothing is loaded, from nowhere.
func compileSchema(raw json.RawMessage) (*jsonschema.Schema, error) {
	wrong := func(err error) error {
		return fmt.Errorf("%w: validate: the JSON Schema cannot be used: %s", controlbus.ErrInvalid, clip(err.Error(), 600))
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, wrong(err)
	}
	switch doc.(type) {
	case map[string]any, bool:
	default:
		return nil, wrong(errors.New("want an object, true or false"))
	}
	const at = "signalbox:///detour/schema"
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	if err := c.AddResource(at, doc); err != nil {
		return nil, wrong(err)
	}
	s, err := c.Compile(at)
	if err != nil {
		return nil, wrong(err)
	}
	return s, nil
}

// noLoader is where a schema's remote references end.
type noLoader struct{}

func (noLoader) Load(string) (any, error) {
	return nil, errors.New("schemas elsewhere are not loaded; put what it refers to under $defs")
}

type validateStep struct{ schema *jsonschema.Schema }

func (s *validateStep) do(_ context.Context, it *item, _ flow) error {
	body, err := plain(it.msg.Body, it.msg.ContentEncoding)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return refusef("the body is not JSON: %v", err)
	}
	err = s.schema.Validate(v)
	if invalid := (*jsonschema.ValidationError)(nil); errors.As(err, &invalid) {
		// The first line names the schema, which is known.
		_, lines, _ := strings.Cut(invalid.Error(), "\n")
		return refusef("not as the schema says: %s", strings.ReplaceAll(strings.TrimPrefix(lines, "- "), "\n- ", "; "))
	} else if err != nil {
		return refusef("it cannot be validated: %v", err)
	}
	return nil
}

// plain undoes the content encoding.
func plain(body []byte, encoding string) ([]byte, error) {
	switch strings.ToLower(encoding) {
	// Some clients write the character set there.
	case "", "identity", "utf-8", "utf8", "ascii", "us-ascii":
		return body, nil
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, refusef("the body is not gzip, as its content encoding says: %v", err)
		}
		out, err := io.ReadAll(io.LimitReader(z, maxInflated+1))
		if err != nil {
			return nil, refusef("the body is not gzip, as its content encoding says: %v", err)
		}
		if len(out) > maxInflated {
			return nil, refusef("the body is larger than %d MiB when inflated", maxInflated>>20)
		}
		return out, nil
	}
	return nil, refusef("a body of content encoding %.40q cannot be validated", encoding)
}
