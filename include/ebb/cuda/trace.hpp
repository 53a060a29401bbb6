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

/// Names of modules, and of the home memory that transfers read.
class Names {
 public:
  /// Of a component whose home memory begins at `home`.
  void add(const Outline& outline, const std::byte* home) { add(outline, home, outline.name); }

  /// Null for what has no name.
  const std::string* find(ModuleId module) const {
    const auto at = modules_.find(module);
    return at == modules_.end() ? nullptr : &at->second;
  }
  const std::string* find(const std::byte* source) const {
    const auto at = sources_.find(source);
    return at == sources_.end() ? nullptr : &at->second;
  }

 private:
  void add(const Outline& node, const std::byte* home, const std::string& path) {
    modules_.emplace(node.id, path);
    if (node.end > node.begin) sources_.emplace(home + node.begin, path);  // the outermost that begins here
    for (const Outline& child : node.children)
      add(child, home, concat(path.substr(0, path.find('.')), ".", child.name));
  }

  std::map<ModuleId, std::string> modules_;
  std::map<const std::byte*, std::string> sources_;
};

/// A timeline of modules and transfers, measured with events on their streams. Every span costs two events, so work
/// that is traced is not recorded into graphs. One issuing thread.
class Trace {
 public:
  Trace() { check(cudaEventCreate(&origin_)); }
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;
  ~Trace() {
    clear();
    cudaEventDestroy(origin_);
  }

  /// Forgets all spans. Times count from here.
  void start(cudaStream_t stream) {
    clear();
    check(cudaEventRecord(origin_, stream));
  }

  /// A span of `stream` from what is issued after this call to what is issued before `end`. @return its number
  std::size_t begin(const std::string& name, Track track, std::size_t bytes, cudaStream_t stream) {
    Span& span = spans_.emplace_back(Span{.name = name, .track = track, .bytes = bytes});
    check(cudaEventCreate(&span.begin));
    check(cudaEventCreate(&span.end));
    check(cudaEventRecord(span.begin, stream));
    return spans_.size() - 1;
  }
  void end(std::size_t span, cudaStream_t stream) noexcept { (void)cudaEventRecord(spans_[span].end, stream); }

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
      text +=
          concat("\n{\"ph\": \"X\", \"name\": \"", span.name, "\", \"pid\": 0, \"tid\": ", static_cast<int>(span.track),
                 ", ", times, ", \"args\": {\"bytes\": ", span.bytes, "}},");
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

  void clear() {
    for (const Span& span : spans_) {
      cudaEventDestroy(span.begin);
      cudaEventDestroy(span.end);
    }
    spans_.clear();
  }

  cudaEvent_t origin_ = nullptr;
  std::vector<Span> spans_;
};

/// Who hears of work as it is issued: profilers always, through NVTX ranges with these names, and a timeline where one
/// is wanted.
struct Observer {
  Names names;
  Trace* trace = nullptr;
};

/// A module or a transfer while it is issued to a stream, from construction to destruction. What has no name is not
/// reported.
class [[nodiscard]] Scope {
 public:
  Scope() = default;
  Scope(const Observer& observer, ModuleId module, cudaStream_t stream)
      : Scope(observer.names.find(module), observer.trace, Track::compute, 0, stream) {}
  Scope(const Observer& observer, const std::byte* source, std::size_t bytes, cudaStream_t stream)
      : Scope(observer.names.find(source), observer.trace, Track::copy, bytes, stream) {}
  Scope(Scope&& other) noexcept
      : open_(std::exchange(other.open_, false)), trace_(other.trace_), span_(other.span_), stream_(other.stream_) {}
  Scope& operator=(Scope&&) = delete;
  ~Scope() {
    if (!open_) return;
    nvtxRangePop();
    if (trace_ != nullptr) trace_->end(span_, stream_);
  }

 private:
  Scope(const std::string* name, Trace* trace, Track track, std::size_t bytes, cudaStream_t stream)
      : trace_(trace), stream_(stream) {
    if (name == nullptr) return;
    if (trace != nullptr) span_ = trace->begin(*name, track, bytes, stream);
    nvtxRangePushA(name->c_str());
    open_ = true;
  }

  bool open_ = false;
  Trace* trace_ = nullptr;
  std::size_t span_ = 0;
  cudaStream_t stream_ = nullptr;
};

/// An NVTX range from construction to destruction. It need not nest with others.
class [[nodiscard]] Range {
 public:
  explicit Range(const char* name) : id_(nvtxRangeStartA(name)) {}
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
  ~Range() { nvtxRangeEnd(id_); }

 private:
  nvtxRangeId_t id_;
};

}  // namespace ebb::cuda
