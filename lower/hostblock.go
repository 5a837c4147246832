package lower

import (
	"fmt"
	"sync"
)

// HostBlock is memory outside the Go heap for one large tensor, aligned to pages. It is freed by
// Free, or by the buffer that adopts it.
type HostBlock struct {
	mu  sync.Mutex
	mem []byte // nil once adopted or freed
}

// Alloc makes a zeroed block of the given size. Its pages take no memory until they are written.
func (b *Backend) Alloc(bytes int64) (*HostBlock, error) {
	if bytes < 1 {
		return nil, fmt.Errorf("lower: block of %d bytes, want at least 1", bytes)
	}
	mem, err := mapMemory(bytes)
	if err != nil {
		return nil, fmt.Errorf("lower: block of %d bytes: %w", bytes, err)
	}
	return &HostBlock{mem: mem}, nil
}

// Bytes is the memory, nil once it is adopted or freed.
func (h *HostBlock) Bytes() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mem
}

// Free gives the memory back, unless a buffer has adopted it.
func (h *HostBlock) Free() {
	if raw := h.take(); raw != nil {
		unmap(raw)
	}
}

func (h *HostBlock) take() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	raw := h.mem
	h.mem = nil
	return raw
}

func (h *HostBlock) put(raw []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mem = raw
}
