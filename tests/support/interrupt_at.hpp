#pragma once

#include <csignal>
#include <iostream>
#include <sstream>
#include <streambuf>
#include <string>
#include <utility>

namespace ebb::testing {

/// Takes what is printed to std::cerr while it lives, and raises SIGINT when that contains `text`.
class InterruptAt : private std::stringbuf {
 public:
  explicit InterruptAt(std::string text) : text_(std::move(text)), before_(std::cerr.rdbuf(this)) {}
  InterruptAt(const InterruptAt&) = delete;
  InterruptAt& operator=(const InterruptAt&) = delete;
  ~InterruptAt() override { std::cerr.rdbuf(before_); }

  std::string printed() const { return str(); }

 private:
  int sync() override {
    if (!raised_ && str().find(text_) != std::string::npos) {
      raised_ = true;
      std::raise(SIGINT);
    }
    return 0;
  }

  std::string text_;
  std::streambuf* before_;
  bool raised_ = false;
};

}  // namespace ebb::testing
