#pragma once

#include <cuda_runtime_api.h>
#include <nvtx3/nvToolsExt.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ebb/core/error.hpp"
#include "ebb/cuda/check.hpp"
#include "ebb/module/outline.hpp"
#include "ebb/module/unit.hpp"

namespace ebb::cuda {

/// Lines of a timeline.
enum class Track { compute, copy };

/// A timeline of modules and transfers, measured with events on their streams, and NVTX ranges around the calls that
/// issue them. Every span costs two events, so work that is traced is not recorded into graphs. One issuing thread.
class Trace {
 public:
  Trace() { check(cudaEventCreate(&origin_)); }
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;
  ~Trace() {
    clear();
    cudaEventDestroy(origin_);
  }

  /// Gives the modules of a component their names, and to its home memory, which begins at `home`.
  void name(const Outline& outline, const std::byte* home) { name(outline, home, outline.name); }

  /// Forgets all spans. Times count from here.
  void start(cudaStream_t stream) {
    clear();
    check(cudaEventRecord(origin_, stream));
  }

  /// From construction to destruction, on one stream. Does nothing without a trace or without a name.
  class [[nodiscard]] Scope {
   public:
    Scope() = default;
    Scope(Trace* trace, ModuleId module, cudaStream_t stream)
        : Scope(trace, trace == nullptr ? nullptr : trace->find(module), Track::compute, stream, 0) {}
    Scope(Trace* trace, const std::byte* source, std::size_t bytes, cudaStream_t stream)
        : Scope(trace, trace == nullptr ? nullptr : trace->find(source), Track::copy, stream, bytes) {}
    Scope(Scope&& other) noexcept
        : trace_(std::exchange(other.trace_, nullptr)), span_(other.span_), stream_(other.stream_) {}
    Scope& operator=(Scope&&) = delete;
    ~Scope() {
      if (trace_ == nullptr) return;
      nvtxRangePop();
      (void)cudaEventRecord(trace_->spans_[span_].end, stream_);
    }

   private:
    Scope(Trace* trace, const std::string* name, Track track, cudaStream_t stream, std::size_t bytes) {
      if (trace == nullptr || name == nullptr) return;
      Span span{.name = *name, .track = track, .bytes = bytes};
      check(cudaEventCreate(&span.begin));
      check(cudaEventCreate(&span.end));
      check(cudaEventRecord(span.begin, stream));
      nvtxRangePushA(name->c_str());
      span_ = trace->spans_.size();
      trace->spans_.push_back(std::move(span));
      trace_ = trace;
      stream_ = stream;
    }

    Trace* trace_ = nullptr;
    std::size_t span_ = 0;
    cudaStream_t stream_ = nullptr;
  };

  /// All spans as a JSON file that chrome://tracing and Perfetto open; times in microseconds. Waits for the device.
  std::string json() const {
    check(cudaDeviceSynchronize());
    std::string text = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [";
    constexpr std::array<std::string_view, 2> tracks{"compute", "copy"};
    for (std::size_t track = 0; track < tracks.size(); ++track)
      text += concat("\n{\"ph\": \"M\", \"name\": \"thread_name\", \"pid\": 0, \"tid\": ", track,
                     ", \"args\": {\"name\": \"", tracks[track], "\"}},");
    for (const Span& span : spans_) {
      float begin = 0.0f;
      float duration = 0.0f;
      check(cudaEventElapsedTime(&begin, origin_, span.begin));
      check(cudaEventElapsedTime(&duration, span.begin, span.end));
      char times[96];
      std::snprintf(times, sizeof(times), "\"ts\": %.3f, \"dur\": %.3f", static_cast<double>(begin) * 1e3,
                    static_cast<double>(duration) * 1e3);
      text += concat("\n{\"ph\": \"X\", \"name\": \"", span.name, "\", \"pid\": 0, \"tid\": ",
                     static_cast<int>(span.track), ", ", times, ", \"args\": {\"bytes\": ", span.bytes, "}},");
    }
    text.pop_back();
    return text + "\n]}\n";
  }

 private:
  struct Span {
    std::string name;
    Track track = Track::compute;
    std::size_t bytes = 0;
    cudaEvent_t begin = nullptr, end = nullptr;
  };

  void name(const Outline& node, const std::byte* home, const std::string& path) {
    modules_.emplace(node.id, path);
    if (node.end > node.begin) sources_.emplace(home + node.begin, path);  // the outermost that begins here
    for (const Outline& child : node.children)
      name(child, home, concat(path.substr(0, path.find('.')), ".", child.name));
  }
  const std::string* find(ModuleId module) const {
    const auto at = modules_.find(module);
    return at == modules_.end() ? nullptr : &at->second;
  }
  const std::string* find(const std::byte* source) const {
    const auto at = sources_.find(source);
    return at == sources_.end() ? nullptr : &at->second;
  }
  void clear() {
    for (const Span& span : spans_) {
      cudaEventDestroy(span.begin);
      cudaEventDestroy(span.end);
    }
    spans_.clear();
  }

  cudaEvent_t origin_ = nullptr;
  std::vector<Span> spans_;
  std::map<ModuleId, std::string> modules_;
  std::map<const std::byte*, std::string> sources_;
};

}  // namespace ebb::cuda
