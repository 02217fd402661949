package collector

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/signalbox-dev/signalbox/storage/spool"
)

// Checkpoint says how far the queue has been stored. What lies before Position
// is in the store; the range from Position to Writing, where Writing is set,
// may be there already and is written again under the same token.
type Checkpoint struct {
	Position spool.Position  `json:"position"`
	Writing  spool.Position  `json:"writing,omitempty"`
	Marks    map[string]Mark `json:"marks"`
}

// Mark is the highest batch of a sender that is durable.
type Mark struct {
	Batch uint64    `json:"batch"`
	At    time.Time `json:"at"` // when it was received
}

func checkpointFile(dir string) string { return filepath.Join(dir, "checkpoint.json") }

// loadCheckpoint returns the zero checkpoint where there is none yet. One that
// cannot be read is put aside: the queue is then stored again from its
// beginning, under tokens of which the store knows most, and duplicates that
// come of it are dropped when read.
func loadCheckpoint(dir string) (c Checkpoint, damaged error) {
	name := checkpointFile(dir)
	text, err := spool.ReadFile(spool.OS, name)
	if errors.Is(err, os.ErrNotExist) {
		return Checkpoint{}, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		if renameErr := os.Rename(name, name+".damaged"); renameErr != nil {
			err = errors.Join(err, renameErr)
		}
		return Checkpoint{}, fmt.Errorf("collector: checkpoint: %w", err)
	}
	return c, nil
}

func saveCheckpoint(dir string, c Checkpoint) error {
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("collector: checkpoint: %w", err)
	}
	if err := spool.WriteFile(spool.OS, checkpointFile(dir), text); err != nil {
		return fmt.Errorf("collector: checkpoint: %w", err)
	}
	return nil
}
