package rabbitmq

// AfterStep calls f after each change of the broker's topology.
func (a *Adapter) AfterStep(f func(what string)) { a.stepped = f }

// CutControl breaks the control connections, as a killed agent's break.
func (a *Adapter) CutControl() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.ctrl {
		c.cut()
	}
}
