#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "ebb/io/json.hpp"

namespace ebb::examples {

/// A message as it goes to a terminal: on one line, and nothing in it that the terminal obeys. Files, whose words
/// messages repeat, may hold such characters; each becomes U+FFFD, and so does a byte that is no UTF-8.
inline std::string one_line(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const std::size_t bytes = std::max<std::size_t>(ebb::detail::Utf8::decode(text).bytes, 1);
    const std::string_view character = text.substr(0, bytes);
    result += ebb::detail::Utf8::printable(character) ? character : "\xef\xbf\xbd";
    text.remove_prefix(bytes);
  }
  return result;
}

}  // namespace ebb::examples
