package state_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/state"
)

func TestSearchesBelongToTheirOwners(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, fresh func(testing.TB) place) { searchesBelong(t, fresh(t)) })
}

func searchesBelong(t *testing.T, path place) {
	s := open(t, path)
	ctx := t.Context()
	add := func(v controlbus.SavedSearch) controlbus.SavedSearch {
		t.Helper()
		id, err := s.AddSearch(ctx, v)
		if err != nil {
			t.Fatal(err)
		}
		v.ID = id
		return v
	}
	mine := add(controlbus.SavedSearch{Owner: "mia", Name: "dead today", Query: `failed:true "a' b"`, Env: "production", Range: "24h", Columns: "time,header.x", Oldest: true})
	hidden := add(controlbus.SavedSearch{Owner: "leo", Name: "mine alone", Query: "x", AnyEnv: true})
	shared := add(controlbus.SavedSearch{Owner: "leo", Name: "Big ones", Query: "size > 1mb", Shared: true})
	common := add(controlbus.SavedSearch{Name: "from before", Query: ""})
	names := func(owner string) []controlbus.SavedSearch {
		t.Helper()
		list, err := open(t, path).Searches(ctx, owner)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if diff := cmp.Diff([]controlbus.SavedSearch{shared, mine, common}, names("mia")); diff != "" {
		t.Errorf("mia sees (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]controlbus.SavedSearch{shared, common}, names("")); diff != "" {
		t.Errorf("nobody in particular sees (-want +got):\n%s", diff)
	}
	for what, err := range map[string]error{
		"rename another's":                         s.RenameSearch(ctx, "mia", shared.ID, "taken over", true),
		"delete another's":                         s.DeleteSearch(ctx, "mia", hidden.ID),
		"rename what is not here":                  s.RenameSearch(ctx, "mia", "nothing", "name", false),
		"delete another's as nobody in particular": s.DeleteSearch(ctx, "", mine.ID),
	} {
		if !errors.Is(err, controlbus.ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", what, err)
		}
	}
	if _, err := s.AddSearch(ctx, controlbus.SavedSearch{Owner: "mia", Name: "dead today"}); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("a name twice: got %v, want ErrConflict", err)
	}
	add(controlbus.SavedSearch{Owner: "leo", Name: "dead today"})
	if err := s.RenameSearch(ctx, "leo", shared.ID, "dead today", true); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("renamed to a name that is taken: got %v, want ErrConflict", err)
	}
	if err := s.RenameSearch(ctx, "leo", shared.ID, "Large", false); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.RenameSearch(ctx, "mia", common.ID, "ours", false), s.DeleteSearch(ctx, "mia", mine.ID)); err != nil {
		t.Error(err)
	}
	common.Name = "ours"
	if diff := cmp.Diff([]controlbus.SavedSearch{common}, names("mia")); diff != "" {
		t.Errorf("in the end mia sees (-want +got):\n%s", diff)
	}
}

func TestSearchesAreBounded(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, fresh func(testing.TB) place) { searchesBounded(t, open(t, fresh(t))) })
}

func searchesBounded(t *testing.T, s *state.Store) {
	for want, list := range map[error][]controlbus.SavedSearch{
		controlbus.ErrInvalid:  {{}, {Name: " x"}, {Name: "\xff"}},
		controlbus.ErrTooLarge: {{Name: strings.Repeat("ü", 61)}, {Name: "n", Query: strings.Repeat("x", 4097)}, {Name: "n", Columns: strings.Repeat("x", 4001)}},
	} {
		for _, v := range list {
			if _, err := s.AddSearch(t.Context(), v); !errors.Is(err, want) {
				t.Errorf("%.80v: got %v, want %v", v, err, want)
			}
		}
	}
	if _, err := s.AddSearch(t.Context(), controlbus.SavedSearch{Name: strings.Repeat("ü", 60)}); err != nil {
		t.Error(err)
	}
	for i := range 200 {
		_, err := s.AddSearch(t.Context(), controlbus.SavedSearch{Owner: "mia", Name: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.AddSearch(t.Context(), controlbus.SavedSearch{Owner: "mia", Name: "one more"}); !errors.Is(err, controlbus.ErrTooLarge) {
		t.Errorf("search 201: got %v, want ErrTooLarge", err)
	}
}
