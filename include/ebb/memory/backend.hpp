#pragma once

#include <concepts>
#include <cstddef>

namespace ebb {

/// Something that runs operations on streams and orders them with events: the CPU, CUDA, a simulation.
/// An object, not a bundle of static functions: it may own threads, counters, a schedule.
///
/// Meaning, the same for every model:
/// - operations of one stream run in the order in which they were issued; streams are otherwise unordered;
/// - `record(event, stream)`: the event is complete when everything issued to `stream` before has finished.
///   An event may be recorded again and again, always on the same stream;
/// - `wait(stream, event)`: later operations of `stream` start only after the event's latest `record` issued so
///   far is complete; an event never recorded is complete;
/// - `copy(target, source, bytes, stream)`: home memory to device memory; both stay alive until it has run;
/// - `synchronize(stream)`: blocks the caller until the stream is idle, and reports what failed on it.
///
/// `computes_on_home_memory`: kernels can read home memory where it lies, so that what never moves needs no copy.
template <class Candidate>
concept Backend = std::copyable<typename Candidate::Stream> && std::movable<typename Candidate::Event> &&
                  requires(Candidate& backend, typename Candidate::Stream stream, typename Candidate::Event& event,
                           std::byte* target, const std::byte* source, std::size_t bytes) {
                    { backend.create_event() } -> std::same_as<typename Candidate::Event>;
                    { backend.destroy_event(event) } noexcept;
                    backend.record(event, stream);
                    backend.wait(stream, event);
                    backend.copy(target, source, bytes, stream);
                    backend.synchronize(stream);
                    { Candidate::computes_on_home_memory } -> std::convertible_to<bool>;
                  };

/// An event that its scope owns.
template <Backend Device>
class ScopedEvent {
 public:
  explicit ScopedEvent(Device& device) : device_(&device), event_(device.create_event()) {}
  ScopedEvent(const ScopedEvent&) = delete;
  ScopedEvent& operator=(const ScopedEvent&) = delete;
  ~ScopedEvent() { device_->destroy_event(event_); }
  typename Device::Event& get() { return event_; }

 private:
  Device* device_;
  typename Device::Event event_;
};

}  // namespace ebb
