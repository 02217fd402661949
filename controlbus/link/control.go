package link

import (
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Control is what people want of the job now, and a channel that is closed when
// that changes. The zero JobControl means what the command's options say. A job
// says with its progress, as JobState.Control, which one it obeys.
func (r *Run) Control() (controlbus.JobControl, <-chan struct{}) {
	r.exec.mu.Lock()
	defer r.exec.mu.Unlock()
	return r.place.control, r.place.changed
}

// obey takes a wish for a command that runs or waits, if it is newer than what
// is known, and says whether the command is here.
func (e *Executor) obey(id controlbus.CommandID, c controlbus.JobControl) (here bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.waiting {
		if w := &e.waiting[i].d; w.Command == id {
			w.Control = newer(w.Control, c)
			return true
		}
	}
	r := e.running[id]
	if r == nil {
		return false
	}
	if c.Seq > r.control.Seq {
		r.control = c
		close(r.changed)
		r.changed = make(chan struct{})
	}
	return true
}

func newer(a, b controlbus.JobControl) controlbus.JobControl {
	if b.Seq > a.Seq {
		return b
	}
	return a
}

// control takes the console's word, and repeats the progress that shows that it
// is obeyed, in case that was lost.
func (e *Executor) control(c Control) {
	if !c.Command.Valid() || !e.obey(c.Command, c.JobControl) {
		return // it has ended, which is told, or will be ordered with the same wish
	}
	entry, known := e.cfg.Journal.Entry(c.Command)
	if p := entry.Progress; known && entry.State == controlbus.JournalBegun && p != nil && p.Job != nil && p.Job.Control >= c.Seq {
		e.tell(Event{Type: Progress, Command: c.Command, Seq: entry.Seq, Progress: p})
	}
}
