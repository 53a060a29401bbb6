#pragma once

#include <CLI/CLI.hpp>
#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <type_traits>

#include "common/png.hpp"
#include "judge/clip_description.hpp"
#include "judge/clip_sight.hpp"
#include "judge/clip_verdict.hpp"
#include "judge/description.hpp"
#include "judge/frames.hpp"
#include "judge/sight.hpp"
#include "judge/verdict.hpp"

namespace ebb::judge {

/// The program `judge`. Returns its status: 0, or 1 where the picture or video is not what was asked for, or 2 for an
/// error, whose message goes to `errors`.
inline int run(int argc, const char* const* argv, std::ostream& out, std::ostream& errors) {
  std::string path, expect, prompt;
  CLI::App app(
      "Prints as JSON what is seen in a picture of world.py or a video of moving_world.py. With --expect or "
      "--prompt it ends with status 0 when that is what was asked for, with 1 when it is not; 2 is an error.",
      "judge");
  app.add_option("path", path, "PNG file; a directory of PNG files or a Y4M file is a video")->required();
  auto* file = app.add_option("--expect", expect, "JSON description as world.py and moving_world.py write it");
  auto* caption = app.add_option("--prompt", prompt, "caption of their grammars")->excludes(file);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, out, errors) == 0 ? 0 : 2;
  }
  const auto judged = [&]<class Asked>(const auto& sight, std::type_identity<Asked>) {
    nlohmann::ordered_json json{{"seen", to_json(sight)}};
    int status = 0;
    if (file->count() + caption->count() > 0) {
      const Verdict verdict = compare(sight, file->count() > 0 ? Asked::read(expect) : Asked::parse(prompt));
      json["verdict"] = to_json(verdict);
      status = verdict.right() ? 0 : 1;
    }
    out << json.dump(1) << '\n';
    return status;
  };
  try {
    if (is_video(path)) return judged(watch(read_frames(path)), std::type_identity<ClipDescription>());
    return judged(look(examples::read_png(path)), std::type_identity<Description>());
  } catch (const std::exception& error) {
    errors << "judge: " << error.what() << '\n';
    return 2;
  }
}

}  // namespace ebb::judge
