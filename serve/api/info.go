package api

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"runtime"
	"time"
)

// card describes the model under one of its names, to clients of OpenAI and of Anthropic at once.
func (s *Server) card(name string) map[string]any {
	return map[string]any{
		"id": name, "object": "model", "created": s.o.Created.Unix(), "owned_by": "mix",
		"root": s.o.Model, "parent": nil, "max_model_len": s.model.Context,
		"layers": s.model.Layers, "experts": s.model.Experts,
		"type": "model", "display_name": name, "created_at": s.o.Created.UTC().Format(time.RFC3339),
	}
}

// models handles GET /v1/models.
func (s *Server) models(w http.ResponseWriter, _ *http.Request) error {
	names := append([]string{s.o.Model}, s.o.Aliases...)
	var cards []any
	for _, n := range names {
		cards = append(cards, s.card(n))
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": cards,
		"has_more": false, "first_id": names[0], "last_id": names[len(names)-1]})
	return nil
}

// oneModel handles GET /v1/models/{id}; an id may contain slashes.
func (s *Server) oneModel(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if id == "" {
		return s.models(w, r)
	}
	name, err := s.modelName(id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, s.card(name))
	return nil
}

// health handles GET /health: the process answers, and is of use or will be. After the engine's failure it is not:
// whoever watches over the process may start it again.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	if s.failed() {
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "failed"})
		return nil
	}
	writeJSON(w, http.StatusOK, map[string]any{"status": "ok"})
	return nil
}

// ready handles GET /ready: all programs are compiled, and the server is not shutting down.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) error {
	s.work.Lock()
	draining := s.draining
	s.work.Unlock()
	switch {
	case draining:
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "draining"})
	case s.failed():
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "failed"})
	case !s.o.Engine.Ready():
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "starting"})
	default:
		writeJSON(w, http.StatusOK, map[string]any{"status": "ready"})
	}
	return nil
}

// version handles GET /version.
func (s *Server) version(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]any{"version": s.o.Version, "go": runtime.Version()})
	return nil
}

//go:embed openapi.json
var document []byte

// Document is the OpenAPI description of the server.
func Document() []byte { return append([]byte(nil), document...) }

// document is the description with the token ids of this model, and without keys where none is needed.
func (s *Server) document() ([]byte, error) {
	var doc map[string]any
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, err
	}
	id := doc["components"].(map[string]any)["schemas"].(map[string]any)["Token"].(map[string]any)
	id["maximum"] = s.model.Vocab - 1
	if len(s.keys) == 0 {
		delete(doc, "security")
	}
	return encode(doc)
}

// openAPI handles GET /openapi.json.
func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) error {
	doc, err := s.document()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(doc) // a client that left is no error
	return nil
}
