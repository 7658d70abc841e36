// One run, many steps.

export function Logo() {
  return (
    <svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true">
      <rect width="32" height="32" rx="8" class="logo-ground" />
      <path d="M10.5 16h3c3 0 3.5-6.5 6.5-6.5h1M10.5 16h3c3 0 3.5 6.5 6.5 6.5h1" class="logo-line" />
      <circle cx="8.5" cy="16" r="3" class="logo-dot" />
      <circle cx="23.5" cy="9.5" r="3" class="logo-dot" />
      <circle cx="23.5" cy="22.5" r="3" class="logo-dot" />
    </svg>
  );
}
